"""Keeps credentials out of text that is logged, reported or shown."""

import re
from typing import NamedTuple

_HIDDEN = "***"
# Names under which a secret follows: in a query, JSON, a printed dict or list of headers.
_NAMES = (
    r"api-?_?key|api_?secret|access-key|secret_?key|encryption_key|secret|signature|sign|password|passphrase"
    r"|passwd|access_token|refresh_token|token|ticket|listenkey"
)
_FOLLOWS = r"(?:[\"']?\s*[=:]\s*(?:b?[\"'])?|[\"'],\s*b?[\"'])"


class _Rule(NamedTuple):
    """Only text with one of the `needles` is searched: most lines have none."""

    needles: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str


_RULES = (
    # Our own tokens: API key, webhook, refresh token, ticket; also where a slash before them is missing.
    _Rule(
        ("tbk_", "tbw_", "tbr_", "tbt_"),
        re.compile(r"(tb[kwrt])_[A-Za-z0-9_\-]{8,}"),
        rf"\1_{_HIDDEN}",
    ),
    # JWT (RFC 7519): its header is JSON and starts with `{"`.
    _Rule(("eyJ",), re.compile(r"eyJ[A-Za-z0-9_\-=]{8,}(?:\.[A-Za-z0-9_\-=]*)*"), f"eyJ{_HIDDEN}"),
    # Paths that are passwords: our webhooks, and those of Slack, Discord and Telegram.
    _Rule(("/webhooks/",), re.compile(r"(/webhooks/[^/\s]+/)[^/\s?\"']+"), rf"\1{_HIDDEN}"),
    _Rule(("/services/",), re.compile(r"(/services/)[^\s?\"']+"), rf"\1{_HIDDEN}"),
    _Rule(("/bot",), re.compile(r"(/bot)\d+:[A-Za-z0-9_\-]+"), rf"\1{_HIDDEN}"),
    # user:password@ and key@ in addresses.
    _Rule(("://",), re.compile(r"(://[^:/\s@]*):[^@\s/]+@"), rf"\1:{_HIDDEN}@"),
    _Rule(("://",), re.compile(r"(https?://)[^:/\s@]+@", re.IGNORECASE), rf"\1{_HIDDEN}@"),
    _Rule(
        (":", "=", "'"),
        re.compile(rf"(authorization{_FOLLOWS})[^\"'\r\n,}}]+", re.IGNORECASE),
        rf"\1{_HIDDEN}",
    ),
    _Rule(
        (" ",), re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/\-]{8,}=*", re.IGNORECASE), rf"\1 {_HIDDEN}"
    ),
    _Rule(
        ("=", ":", "'"),
        re.compile(rf"(?<![A-Za-z0-9])((?:{_NAMES}){_FOLLOWS})[^\s\"'&,;}})\]]+", re.IGNORECASE),
        rf"\1{_HIDDEN}",
    ),
)


def redact(text: str) -> str:
    """Masks tokens, paths and addresses that hold passwords, and values of fields named like secrets."""
    for needles, pattern, replacement in _RULES:
        for needle in needles:
            if needle in text:
                text = pattern.sub(replacement, text)
                break
    return text
