"""Which secrets are too weak to start with. Every refusal says why and how to make a good one."""

import base64
import binascii
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

Check = Callable[[str], None]

MIN_SECRET_KEY = 32
MIN_WEBHOOK_SECRET = 16
MIN_DISTINCT_CHARACTERS = 8
KEY_BYTES = 32

_HOW_TO_MAKE_ONE = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
_HOW_TO_MAKE_A_KEY = (
    'make one with: python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
)
_PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|this|it)|replace[-_ ]?(me|this|with)|place[-_ ]?holder|^(to)?do$|your[-_ ]"
    r"|password|passwd|example|dummy|default|insecure|secret[-_ ]?key|webhook[-_ ]?secret|encryption[-_ ]?key"
    r"|letmein|qwerty|123456|^<.*>$|^\$?\{.*\}$",
    re.IGNORECASE,
)
_WEAK_PASSWORDS = frozenset(
    {"", "postgres", "redis", "tradingbot", "admin", "root", "secret", "test", "user"}
)
_SENTRY_DSN = re.compile(r"^https?://[^/@\s]+@[^/@\s]+/([^?#\s]*/)?\d+$")
_ORIGIN = re.compile(r"^https?://[A-Za-z0-9.\-\[\]:]+$")


def check_secret_key(value: str) -> None:
    """Raises ValueError unless `value` can be the key of token hashes."""
    _check_secret(value, MIN_SECRET_KEY)


def check_webhook_secret(value: str) -> None:
    """Raises ValueError unless `value` can be the secret that senders put into an alert."""
    _check_secret(value, MIN_WEBHOOK_SECRET)


def check_encryption_key(value: str) -> None:
    """Raises ValueError unless `value` is 32 random bytes in base64.

    The same rule as in the collection's preflight: what one accepts must not be refused by the other.
    """
    try:
        raw = decode_key(value)
    except ValueError as error:
        raise ValueError(f"{error}; {_HOW_TO_MAKE_A_KEY}") from None
    # 32 random bytes are all ASCII once in 2**32: somebody has encoded a text.
    if len(set(raw)) < MIN_DISTINCT_CHARACTERS or raw.isascii():
        raise ValueError(f"is not random; {_HOW_TO_MAKE_A_KEY}")


def decode_key(value: str) -> bytes:
    """Gives the bytes of an encryption key.

    Raises:
        ValueError: not base64 (of either alphabet) of 32 bytes.
    """
    try:
        raw = base64.b64decode(value.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} bytes in base64")
    return raw


def check_database_url(value: str) -> None:
    """Raises ValueError unless `value` is a PostgreSQL address without a placeholder password."""
    _check_url(
        value,
        ("postgresql", "postgres", "postgresql+asyncpg"),
        "postgresql://user:password@host:5432/database",
    )


def check_redis_url(value: str) -> None:
    """Raises ValueError unless `value` is a Redis address without a placeholder password."""
    _check_url(value, ("redis", "rediss"), "redis://user:password@host:6379/0")


def check_sentry_dsn(value: str) -> None:
    """Raises ValueError unless `value` is the address of a Sentry project."""
    if not _SENTRY_DSN.match(value):
        raise ValueError("is not of the form https://key@host/project-number (Sentry shows it as the DSN)")


def is_origin(value: str) -> bool:
    """Tells whether `value` is scheme, host and optional port, as browsers send it."""
    return _ORIGIN.match(value) is not None


def _check_secret(value: str, minimum: int) -> None:
    if _PLACEHOLDER.search(value):
        raise ValueError(f"is a placeholder; {_HOW_TO_MAKE_ONE}")
    if len(value) < minimum:
        raise ValueError(f"has {len(value)} characters, at least {minimum} are needed; {_HOW_TO_MAKE_ONE}")
    if len(set(value)) < MIN_DISTINCT_CHARACTERS:
        raise ValueError(f"repeats the same few characters; {_HOW_TO_MAKE_ONE}")


def _check_url(value: str, schemes: tuple[str, ...], form: str) -> None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            f"is not of the form {form} (special characters in the password are percent-encoded)"
        )
    password = unquote(parts.password or "")
    if password.lower() in _WEAK_PASSWORDS or password == parts.username or _PLACEHOLDER.search(password):
        raise ValueError(f"has no password, or a placeholder for one; {_HOW_TO_MAKE_ONE}")
