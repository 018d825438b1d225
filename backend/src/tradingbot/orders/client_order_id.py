"""Our name for an order at the exchange: it follows from the cause, so the same cause is the same order."""

import base64
import hashlib
from uuid import UUID

_PREFIX = "tb"
_LENGTH = 30
# Between the name of the first order and the number of one that goes on with it. Names for so many parts fit.
PART = "-"
MOST_PARTS = 999


def for_signal(signal_id: UUID) -> str:
    """The name of the order that a signal asks for."""
    return _name("signal", str(signal_id))


def for_key(user_id: UUID, key: str) -> str:
    """The name of the order that a user made by hand under a key of theirs."""
    return _name("key", f"{user_id}:{key}")


def for_part(name: str, number: int) -> str:
    """Return the name of the order that goes on, for the `number`-th time, with what the named one closes."""
    return f"{name}{PART}{number}"


def first_of(name: str) -> str:
    """Return the name of the order that the named one goes on with; that of a first one is its own."""
    return name.partition(PART)[0]


def _name(kind: str, cause: str) -> str:
    """`tb` and 150 bits of SHA-256 in lower-case base32: fits `^[.A-Z:/a-z0-9_-]{1,36}$`, Binance's pattern,
    with room for `-999`.

    Source: Binance Spot API documentation, "New order", parameter newClientOrderId.
    """
    digest = hashlib.sha256(f"{kind}:{cause}".encode()).digest()
    return _PREFIX + base64.b32encode(digest).decode().lower()[:_LENGTH]
