# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The secrets of an inventory: their names, how to make them, and what makes one unfit.

Nothing in here puts a value into a message.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import secrets
import string
from collections.abc import Mapping

PASSWORD = "password"
KEY = "key"

SECRETS: dict[str, str] = {
    "vault_postgres_superuser_password": PASSWORD,
    "vault_postgres_owner_password": PASSWORD,
    "vault_postgres_password": PASSWORD,
    "vault_postgres_readonly_password": PASSWORD,
    "vault_redis_password": PASSWORD,
    "vault_redis_health_password": PASSWORD,
    "vault_backend_secret_key": PASSWORD,
    "vault_backend_webhook_secret": PASSWORD,
    "vault_backend_encryption_key": KEY,
}
"""Every secret that the roles need, and its kind. A new secret is one more line."""

OPTIONAL: dict[str, str | None] = {
    "vault_backend_encryption_key_old": KEY,
    "vault_backend_notify_urls": None,
    "vault_backend_sentry_dsn": None,
    "vault_backend_registry_password": None,
}
"""Secrets that the roles take when they are given, and their kinds; None: somebody else issues them."""

MIN_LENGTH = 32
MIN_VARIETY = 10
PASSWORD_LENGTH = 43  # 43 of 62 characters: 43 * log2(62) = 256 bit
KEY_BYTES = 32
KEY_VARIETY = 8

_ALPHABET = string.ascii_letters + string.digits
_PLACEHOLDER = re.compile(
    r"<.*>|\$\{.*\}|x{6,}|change[ _-]?(me|this|it)|replace[ _-]?(me|this)|placeholder|insecure"
    r"|password|secret|example"
    r"|^your[ _-]|^(x+|todo|tbd|fixme|none|null|default|admin|test|undefined)$",
    re.IGNORECASE | re.DOTALL,
)

Finding = dict[str, str]


def make(kind: str) -> str:
    """Return a new secret with 256 bit from the system's random source.

    A ``password`` is alphanumeric, so it needs no quoting in any file or URL;
    a ``key`` is the urlsafe base64 form of 32 bytes.
    """
    if kind == KEY:
        return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    if kind == PASSWORD:
        return "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))
    raise ValueError(f"unknown kind of secret: {kind}")


def is_empty(value: object) -> bool:
    """Return whether *value* counts as not given."""
    return value is None or (isinstance(value, str) and not value.strip())


def _key_reason(value: str) -> str | None:
    """Return why *value* is unfit as a key: the rule by which the backend judges ENCRYPTION_KEY."""
    try:
        key = base64.b64decode(value.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        return f"is not urlsafe base64 of {KEY_BYTES} bytes"
    # 32 random bytes are all ASCII once in 2**32: somebody has encoded a text.
    return "is not random" if len(set(key)) < KEY_VARIETY or key.isascii() else None


def _pattern_reason(value: str) -> str | None:
    if len(set(value)) < MIN_VARIETY:
        return f"has fewer than {MIN_VARIETY} different characters"
    if value in (value + value)[1:-1]:
        return "is one piece repeated"
    steps = [abs(ord(after) - ord(before)) <= 1 for before, after in itertools.pairwise(value)]
    return "is a run of neighbouring characters" if sum(steps) * 2 > len(steps) else None


def reason(value: object, kind: str | None) -> str | None:
    """Return why *value* is unfit as a secret, or None.

    With *kind* None (a secret that somebody else issues) its strength is not judged.
    """
    if is_empty(value):
        return "is empty"
    if not isinstance(value, str):
        return "is not a string; put it in quotes"
    # A word in the base64 of random bytes is chance.
    if kind == KEY and _key_reason(value) is None:
        return None
    if _PLACEHOLDER.search(value):
        return "is a placeholder"
    if kind is None:
        return None
    if len(value) < MIN_LENGTH:
        return f"is shorter than {MIN_LENGTH} characters"
    return _key_reason(value) if kind == KEY else _pattern_reason(value)


def _reused(values: Mapping[str, object]) -> list[list[str]]:
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        if isinstance(value, str) and value.strip():
            names.setdefault(value, []).append(name)
    return [sorted(same) for same in names.values() if len(same) > 1]


def edit_command(inventory: str) -> str:
    """Return the command that opens the vault file of *inventory* in an editor."""
    return f"ansible-vault edit --vault-password-file ~/.tradingbot-vault {inventory}/group_vars/all/vault.yml"


def findings(
    values: Mapping[str, object],
    required: Mapping[str, str] | None = None,
    inventory: str = "inventories/prod",
) -> list[Finding]:
    """Return the problems of *values* (name to value) as preflight findings.

    *required* maps each name that must be there to its kind; other names are judged too, except for
    their strength. *inventory* is the path that the suggested commands name.
    """
    needed = SECRETS if required is None else required
    kinds = {**OPTIONAL, **needed}
    generate = f"ansible-playbook tradingbot.stack.secrets -i {inventory} --vault-password-file ~/.tradingbot-vault"
    edit = edit_command(inventory)
    missing = [name for name in needed if name not in values]
    found = [{"what": ", ".join(missing), "why": "not set", "fix": generate}] if missing else []
    for name, value in values.items():
        why = reason(value, kinds.get(name))
        if why is None:
            continue
        again = f" and delete its line, then: {generate}" if name in needed else " and give its real value"
        found.append({"what": name, "why": why, "fix": edit + again})
    return found + [
        {
            "what": ", ".join(same),
            "why": "have the same value: whoever learns one has them all",
            "fix": f"{edit} and delete the lines of all but the one in use, then: {generate}",
        }
        for same in _reused(values)
    ]
