"""Envelopes open where they were sealed, and nowhere else."""

import base64
import hashlib
import os
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ENCRYPTION_KEY
from tradingbot.core.crypto import EnvelopeError, Envelopes
from tradingbot.core.settings import Settings

OLD_KEY = base64.urlsafe_b64encode(bytes(range(130, 162))).decode()
USER, ROW = UUID(int=1), UUID(int=2)
SECRET = "q7Zp2Lw9Xk4rT8vB"
ENVELOPES = Envelopes(ENCRYPTION_KEY)

PLAINTEXTS = st.text(max_size=200)
# A character of an envelope, and what may stand there instead.
CHARACTERS = st.sampled_from("ABYZabyz0189-_.=+/ v\n\x00é")


def seal(plaintext: str, envelopes: Envelopes = ENVELOPES) -> str:
    return envelopes.seal(plaintext, user_id=USER, row_id=ROW, field="secret")


def open_(envelope: str, envelopes: Envelopes = ENVELOPES) -> str:
    return envelopes.open(envelope, user_id=USER, row_id=ROW, field="secret")


@given(PLAINTEXTS)
def test_what_was_sealed_is_opened(plaintext: str) -> None:
    envelope = seal(plaintext)
    assert open_(envelope) == plaintext
    assert ENVELOPES.is_current(envelope)
    assert seal(plaintext) != envelope


@given(PLAINTEXTS, st.data())
def test_no_character_of_an_envelope_may_change(plaintext: str, data: st.DataObject) -> None:
    envelope = seal(plaintext)
    place = data.draw(st.integers(0, len(envelope) - 1))
    other = data.draw(CHARACTERS.filter(lambda character: character != envelope[place]))
    with pytest.raises(EnvelopeError):
        open_(envelope[:place] + other + envelope[place + 1 :])


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_bit_of_nonce_text_or_tag_may_change(plaintext: bytes, data: st.DataObject) -> None:
    version, key_id, *parts = seal(plaintext.hex()).split(".")
    raw = [bytearray(base64.urlsafe_b64decode(part + "==")) for part in parts]
    part = data.draw(st.sampled_from(raw))
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in raw]
    with pytest.raises(EnvelopeError):
        open_(".".join([version, key_id, *changed]))


@given(PLAINTEXTS, st.data())
def test_a_shortened_envelope_does_not_open(plaintext: str, data: st.DataObject) -> None:
    envelope = seal(plaintext)
    with pytest.raises(EnvelopeError):
        open_(envelope[: data.draw(st.integers(0, len(envelope) - 1))])


@given(st.text(max_size=300))
def test_any_text_is_an_envelope_error_at_worst(text: str) -> None:
    with pytest.raises(EnvelopeError):
        open_(text)


def test_every_other_spelling_of_the_last_character_is_refused() -> None:
    """Base64 of a length that is no multiple of three leaves bits unused: they must be zero."""
    for length in range(3):
        envelope = seal("x" * length)
        for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            if character != envelope[-1]:
                with pytest.raises(EnvelopeError):
                    open_(envelope[:-1] + character)


@pytest.mark.parametrize(
    ("user_id", "row_id", "field"),
    [(uuid4(), ROW, "secret"), (USER, uuid4(), "secret"), (USER, ROW, "key"), (ROW, USER, "secret")],
)
def test_an_envelope_opens_in_its_own_place_only(user_id: UUID, row_id: UUID, field: str) -> None:
    envelope = seal(SECRET)
    assert open_(envelope) == SECRET
    with pytest.raises(EnvelopeError, match="another row or field"):
        ENVELOPES.open(envelope, user_id=user_id, row_id=row_id, field=field)


def test_an_envelope_is_made_as_it_is_documented() -> None:
    """What is stored has to open for ever: made here without our code."""
    key, nonce = base64.urlsafe_b64decode(ENCRYPTION_KEY), bytes(range(12))
    key_id = hashlib.sha256(b"tradingbot key id:" + key).hexdigest()[:8]
    sealed = AESGCM(key).encrypt(nonce, SECRET.encode(), f"v1|{USER}|{ROW}|secret".encode())
    parts = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (nonce, sealed)]
    assert open_(".".join(["v1", key_id, *parts])) == SECRET


def test_the_old_key_is_read_and_never_written() -> None:
    before = Envelopes(OLD_KEY)
    envelope = seal(SECRET, before)
    rotated = Envelopes(ENCRYPTION_KEY, OLD_KEY)
    assert open_(envelope, rotated) == SECRET
    assert not rotated.is_current(envelope)
    assert rotated.is_current(seal(SECRET, rotated))
    with pytest.raises(EnvelopeError, match="neither ENCRYPTION_KEY nor ENCRYPTION_KEY_OLD"):
        open_(seal(SECRET, rotated), before)
    with pytest.raises(EnvelopeError, match="neither"):
        open_(envelope)


def test_the_id_of_the_other_key_does_not_help() -> None:
    rotated = Envelopes(ENCRYPTION_KEY, OLD_KEY)
    version, _key_id, *rest = seal(SECRET, Envelopes(OLD_KEY)).split(".")
    with pytest.raises(EnvelopeError, match="damaged"):
        open_(".".join([version, rotated.key_id, *rest]), rotated)


def test_another_version_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="version"):
        open_("v2" + seal(SECRET).removeprefix("v1"))


def test_messages_hold_no_plaintext_no_envelope_and_no_key() -> None:
    envelope = seal(SECRET)
    texts = [repr(ENVELOPES), str(ENVELOPES)]
    for wrong in (envelope[:-4], "v9" + envelope[2:], envelope.replace(ENVELOPES.key_id, "00000000")):
        with pytest.raises(EnvelopeError) as raised:
            open_(wrong)
        texts.append(str(raised.value))
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__ or raised.value.__context__ is None
    for text in texts:
        for hidden in (SECRET, ENCRYPTION_KEY, envelope[12:30]):
            assert hidden not in text


def test_keys_of_both_alphabets_are_the_same_key() -> None:
    raw = bytes(range(224, 256))
    standard, url_safe = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    assert standard != url_safe
    assert open_(seal(SECRET, Envelopes(standard)), Envelopes(url_safe)) == SECRET


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Envelopes(base64.urlsafe_b64encode(os.urandom(16)).decode())


def test_those_of_the_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_(seal(SECRET), Envelopes.of(Settings())) == SECRET
    monkeypatch.setenv("ENCRYPTION_KEY_OLD", OLD_KEY)
    assert open_(seal(SECRET, Envelopes(OLD_KEY)), Envelopes.of(Settings())) == SECRET
