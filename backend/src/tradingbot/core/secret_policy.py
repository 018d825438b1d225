"""What makes a secret fit: the one place for the backend's settings and for the collection's preflight.

The preflight imports this file, so it needs nothing but the standard library. A reason never holds the value.
"""

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

Judge = Callable[[str], str | None]
"""Return why a value is unfit, or None."""

MIN_LENGTH = 32
MIN_VARIETY = 10
# What an alert may carry as its secret.
MAX_LENGTH = 512
KEY_BYTES = 32
KEY_VARIETY = 8
# People choose the secret of a strategy, and TradingView's form is small.
STRATEGY_MIN_LENGTH = 16
STRATEGY_MIN_VARIETY = 8

_PLACEHOLDER = re.compile(
    r"^<.*>$|\$\{.*\}|change[ _-]?(me|this|it)|replace[ _-]?(me|this|with)|place[ _-]?holder|^your[ _-]"
    r"|^(x+|to|do|todo|tbd|fixme|none|null|default|admin|root|user|test|undefined)$",
    re.IGNORECASE | re.DOTALL,
)
# In a secret that we make, such a word is no chance either. Others may issue one with it.
_WORD = re.compile(
    r"x{6,}|password|passwd|secret|example|dummy|default|insecure|letmein|qwerty"
    r"|encryption[ _-]?key|your[ _-]",
    re.IGNORECASE,
)
_WEAK_PASSWORDS = frozenset({"", "postgres", "redis", "tradingbot"})
_SENTRY_DSN = re.compile(r"https?://[^/@\s]+@[^/@\s]+/([^?#\s]*/)?\d+")
_NOTIFY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://.+")
_BETWEEN_NOTIFY_URLS = re.compile(r",?\s+|,(?=[A-Za-z][A-Za-z0-9+.\-]*://)")
_ORIGIN = re.compile(r"^https?://[A-Za-z0-9.\-\[\]:]+$")


def password_problem(value: str, min_length: int = MIN_LENGTH, min_variety: int = MIN_VARIETY) -> str | None:
    """Return why `value` is unfit as a password or key of signatures that we choose, or None."""
    form = _form_problem(value)
    if form is not None:
        return form
    if _is_placeholder(value):
        return "is a placeholder"
    if len(value) < min_length:
        return f"is shorter than {min_length} characters"
    if len(value) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if len(set(value)) < min_variety:
        return f"has fewer than {min_variety} different characters"
    if value in (value + value)[1:-1]:
        return "is one piece repeated"
    steps = [abs(ord(after) - ord(before)) <= 1 for before, after in itertools.pairwise(value)]
    return "is a run of neighbouring characters" if sum(steps) * 2 > len(steps) else None


def strategy_secret_problem(value: str) -> str | None:
    """Return why `value` is unfit as the secret in the alerts of one strategy, or None."""
    return password_problem(value, STRATEGY_MIN_LENGTH, STRATEGY_MIN_VARIETY)


def key_problem(value: str) -> str | None:
    """Return why `value` is unfit as a key of encryption, or None."""
    try:
        raw = decode_key(value)
    except ValueError as error:
        # Only here: a word in the base64 of random bytes is chance.
        return _form_problem(value) or ("is a placeholder" if _PLACEHOLDER.search(value) else str(error))
    # 32 random bytes are all ASCII once in 2**32: somebody has encoded a text.
    return "is not random" if len(set(raw)) < KEY_VARIETY or raw.isascii() else None


def decode_key(value: str) -> bytes:
    """Return the bytes of an encryption key.

    Raises:
        ValueError: not base64 (of either alphabet) of 32 bytes.
    """
    try:
        raw = base64.b64decode(value.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"is not urlsafe base64 of {KEY_BYTES} bytes")
    return raw


def placeholder_problem(value: str) -> str | None:
    """Return why `value` is no secret that somebody else has issued, or None."""
    return "is a placeholder" if _PLACEHOLDER.search(value) else None


def token_problem(value: str) -> str | None:
    """Return why `value` is no token or password that somebody else has issued, or None."""
    return _ends_problem(value) or placeholder_problem(value)


def database_url_problem(value: str) -> str | None:
    """Return why `value` is no address of PostgreSQL with a password in it, or None."""
    return _url_problem(value, ("postgresql", "postgres", "postgresql+asyncpg"))


def redis_url_problem(value: str) -> str | None:
    """Return why `value` is no address of Redis with a password in it, or None."""
    return _url_problem(value, ("redis", "rediss"))


def sentry_dsn_problem(value: str) -> str | None:
    """Return why `value` is not the address of a Sentry project, or None."""
    return _form_problem(value) or (
        None if _SENTRY_DSN.fullmatch(value) else "is not the address of a Sentry project"
    )


def notify_urls_problem(value: str) -> str | None:
    """Return why `value` is not a list of addresses in Apprise's form, or None."""
    if all(_NOTIFY_URL.fullmatch(url) for url in notify_urls(value)):
        return None
    return "has something in it that is not an address in Apprise's form"


def notify_urls(value: str) -> list[str]:
    """Return the addresses, which are separated by blanks, line ends or commas before an address."""
    return _BETWEEN_NOTIFY_URLS.split(value.strip())


def is_origin(value: str) -> bool:
    """Return whether `value` is scheme, host and optional port, as browsers send it."""
    return _ORIGIN.match(value) is not None


class Rule(NamedTuple):
    """How a setting is judged, how to get a fit value, and whether the setting may be empty."""

    problem: Judge
    fix: str
    is_optional: bool = False


_MAKE = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
_MAKE_KEY = (
    'make one with: python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
)
_QUOTE = f"special characters in the password are percent-encoded; {_MAKE}"

SETTINGS = {
    "database_url": Rule(
        database_url_problem, f"give one of the form postgresql://user:password@host:5432/database; {_QUOTE}"
    ),
    "redis_url": Rule(redis_url_problem, f"give one of the form redis://user:password@host:6379/0; {_QUOTE}"),
    "secret_key": Rule(password_problem, _MAKE),
    "webhook_secret": Rule(password_problem, _MAKE),
    "encryption_key": Rule(key_problem, _MAKE_KEY),
    "encryption_key_old": Rule(key_problem, "give the key before the last rotation, or nothing", True),
    "notify_urls": Rule(
        notify_urls_problem,
        "write one address a line, like tgram://<bot token>/<chat id> (https://github.com/caronc/apprise/wiki)",
        True,
    ),
    "sentry_dsn": Rule(
        sentry_dsn_problem,
        "copy the DSN from the settings of the project: it is of the form https://<key>@<host>/<number>",
        True,
    ),
}
"""The settings that are secrets."""

OURS = ("secret_key", "webhook_secret", "encryption_key", "encryption_key_old")
"""The settings that must differ from each other."""


def reused(values: Mapping[str, object], names: Collection[str]) -> list[list[str]]:
    """Return which of the `names` have the same value, those of one value together and sorted."""
    same: dict[str, list[str]] = {}
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and value.strip():
            same.setdefault(value, []).append(name)
    return [sorted(group) for group in same.values() if len(group) > 1]


def _ends_problem(value: str) -> str | None:
    # The backend reads its files without the blanks at their ends.
    return "begins or ends with a blank or a line end" if value != value.strip() else None


def _form_problem(value: str) -> str | None:
    if not (value.isascii() and value.strip().isprintable()):
        return "has characters other than printable ASCII"
    return _ends_problem(value)


def _url_problem(value: str, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        return _form_problem(value) or "is not the address of such a service"
    password = unquote(parts.password or "")
    if password.lower() in _WEAK_PASSWORDS or password == parts.username or _is_placeholder(password):
        return "has no password, or a placeholder for one"
    return _form_problem(value)


def _is_placeholder(value: str) -> bool:
    return bool(_PLACEHOLDER.search(value) or _WORD.search(value))
