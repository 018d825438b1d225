"""Cursors: the place in a list that is ordered by time and id, as opaque text."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from tradingbot.core.errors import UnprocessableError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH = 8 + 16


class Cursor(NamedTuple):
    """The last row that the client has."""

    at: datetime
    id: UUID


def encode_cursor(cursor: Cursor) -> str:
    """Writes a cursor as URL-safe text."""
    microseconds = (cursor.at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(microseconds.to_bytes(8, "big") + cursor.id.bytes).decode()


def decode_cursor(text: str) -> Cursor:
    """Reads what `encode_cursor` wrote.

    Raises:
        UnprocessableError: it did not write this.
    """
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
        if len(raw) != _LENGTH:
            raise ValueError("wrong length")
        at = _EPOCH + timedelta(microseconds=int.from_bytes(raw[:8], "big"))
    except (binascii.Error, ValueError, OverflowError):
        raise UnprocessableError("The cursor is not one that this list gave.") from None
    return Cursor(at, UUID(bytes=raw[8:]))
