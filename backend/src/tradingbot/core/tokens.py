"""Random tokens: shown once, stored as a keyed hash.

A token is `<prefix>_<43 characters><6 characters>`: 256 random bits and a CRC-32 of what stands before it, so
a mistyped token is known without asking the database. Stored is HMAC-SHA256 (RFC 2104) of the token under
SECRET_KEY: who reads the table cannot use it, and cannot test guesses without the key.
"""

import hashlib
import hmac
import secrets
import zlib
from base64 import urlsafe_b64encode
from enum import StrEnum

_RANDOM_BYTES = 32
_RANDOM_LENGTH = 43
_CHECKSUM_LENGTH = 6
DISPLAY_LENGTH = 12


class TokenKind(StrEnum):
    """What a token is for: its prefix."""

    API_KEY = "tbk"
    WEBHOOK = "tbw"
    TICKET = "tbt"
    REFRESH = "tbr"


def new_token(kind: TokenKind) -> str:
    """Makes a token of this kind."""
    body = f"{kind}_{secrets.token_urlsafe(_RANDOM_BYTES)}"
    return body + _checksum(body)


def is_well_formed(token: str, kind: TokenKind) -> bool:
    """Tells whether `token` could be one of ours: prefix, length and checksum."""
    body, checksum = token[:-_CHECKSUM_LENGTH], token[-_CHECKSUM_LENGTH:]
    if not token.isascii() or not body.startswith(f"{kind}_"):
        return False
    if len(body) != len(kind) + 1 + _RANDOM_LENGTH:
        return False
    return hmac.compare_digest(checksum, _checksum(body))


def hash_token(token: str, key: str) -> str:
    """Gives what is stored of `token`, in hexadecimal."""
    return hmac.new(key.encode(), token.encode(), hashlib.sha256).hexdigest()


def derive_key(key: str, purpose: str) -> bytes:
    """Gives a key of 32 bytes for one purpose: who knows it learns nothing of `key` or of other purposes."""
    return hmac.digest(key.encode(), f"tradingbot {purpose}".encode(), "sha256")


def _checksum(body: str) -> str:
    crc = zlib.crc32(body.encode())
    return urlsafe_b64encode(crc.to_bytes(4, "big")).decode().rstrip("=")
