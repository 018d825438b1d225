"""Envelopes: text encrypted for one field of one row of one user.

An envelope is `v1.<key id>.<nonce>.<ciphertext>`, the last two in URL-safe base64 without padding. The cipher
is AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits; the ciphertext ends in its tag of 128 bits.
Version, user, row and field are associated data: an envelope that is moved to another place does not open
there. The key id is the beginning of a hash of the key: it tells which key is needed, and nothing of it.
"""

import base64
import binascii
import hashlib
import secrets
from typing import Self
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tradingbot.core import secret_policy
from tradingbot.core.settings import SecuritySettings

VERSION = "v1"
_NONCE_BYTES = 12
_KEY_ID_LENGTH = 8


class EnvelopeError(Exception):
    """The envelope does not open: damaged, of another place, or sealed with a key that we do not have."""


class Envelopes:
    """Seals with the current key; opens what the current or the old key sealed."""

    def __init__(self, current_key: str, old_key: str | None = None) -> None:
        """Raises ValueError if a key is not base64 of 32 bytes."""
        self.key_id, current = _load(current_key)
        self._ciphers = {self.key_id: current}
        if old_key is not None:
            key_id, old = _load(old_key)
            self._ciphers.setdefault(key_id, old)

    @classmethod
    def of(cls, settings: SecuritySettings) -> Self:
        """Gives those of ENCRYPTION_KEY and ENCRYPTION_KEY_OLD."""
        old = settings.encryption_key_old
        return cls(settings.encryption_key.get_secret_value(), old.get_secret_value() if old else None)

    @property
    def current_prefix(self) -> str:
        """What every envelope under the current key begins with."""
        return f"{VERSION}.{self.key_id}."

    def seal(self, plaintext: str, *, user_id: UUID, row_id: UUID, field: str) -> str:
        """Encrypts `plaintext` for this field of this row of this user, under the current key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        associated = _associated_data(user_id, row_id, field)
        sealed = self._ciphers[self.key_id].encrypt(nonce, plaintext.encode(), associated)
        return f"{self.current_prefix}{_encode(nonce)}.{_encode(sealed)}"

    def open(self, envelope: str, *, user_id: UUID, row_id: UUID, field: str) -> str:
        """Gives the text that was sealed for this field of this row of this user.

        Raises:
            EnvelopeError: the message says why, and holds neither the text nor the envelope.
        """
        parts = envelope.split(".")
        if len(parts) != 4 or parts[0] != VERSION:
            raise EnvelopeError("not an envelope of a known version")
        _version, key_id, nonce, sealed = parts
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise EnvelopeError("sealed with a key that is neither ENCRYPTION_KEY nor ENCRYPTION_KEY_OLD")
        try:
            opened = cipher.decrypt(_decode(nonce), _decode(sealed), _associated_data(user_id, row_id, field))
            return opened.decode()
        except (InvalidTag, ValueError):
            raise EnvelopeError("damaged, or of another row or field") from None

    def is_current(self, envelope: str) -> bool:
        """Tells whether the envelope is under the current key."""
        return envelope.startswith(self.current_prefix)


def _load(key: str) -> tuple[str, AESGCM]:
    raw = secret_policy.decode_key(key)
    return hashlib.sha256(b"tradingbot key id:" + raw).hexdigest()[:_KEY_ID_LENGTH], AESGCM(raw)


def _associated_data(user_id: UUID, row_id: UUID, field: str) -> bytes:
    return f"{VERSION}|{user_id}|{row_id}|{field}".encode()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    # Several texts can mean the same bytes; only the one that we write is taken.
    if _encode(raw) != text:
        raise ValueError("not our base64")
    return raw
