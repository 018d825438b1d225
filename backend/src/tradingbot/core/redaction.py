"""Keeps credentials out of text that is logged or shown."""

import re

_RULES = (
    (re.compile(r"\b(tb[kw])_[A-Za-z0-9_\-]{8,}"), r"\1_***"),
    (re.compile(r"(/webhooks/[^/\s]+/)[^/\s?\"']+"), r"\1***"),
    (re.compile(r"([a-z][a-z0-9+.\-]*://[^:/\s@]*):[^@\s/]+@", re.IGNORECASE), r"\1:***@"),
)


def redact(text: str) -> str:
    """Masks tokens, webhook paths and passwords in addresses."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
