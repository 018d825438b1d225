# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The secrets of an inventory: their names, how to make them, and what is wrong with them.

What makes one fit is the backend's own rule, which is imported from its sources: what passes here does not keep it
from starting. Nothing in here puts a value into a message.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Mapping

from ansible_collections.tradingbot.stack.backend.src.tradingbot.core import secret_policy as policy

PASSWORD = "password"
KEY = "key"
TOKEN = "token"
SENTRY_DSN = "Sentry DSN"
NOTIFY_URLS = "notification addresses"

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

OPTIONAL: dict[str, str] = {
    "vault_backend_encryption_key_old": KEY,
    "vault_backend_notify_urls": NOTIFY_URLS,
    "vault_backend_sentry_dsn": SENTRY_DSN,
    "vault_backend_registry_password": TOKEN,
}
"""Secrets that the roles take when they are given, and their kinds; an empty one is not given."""

_JUDGES: dict[str | None, policy.Judge] = {
    PASSWORD: policy.password_problem,
    KEY: policy.key_problem,
    TOKEN: policy.token_problem,
    SENTRY_DSN: policy.sentry_dsn_problem,
    NOTIFY_URLS: policy.notify_urls_problem,
    # Of no use for the roles: somebody else issues it, and knows its form.
    None: policy.placeholder_problem,
}

PASSWORD_LENGTH = 43  # 43 of 62 characters: 43 * log2(62) = 256 bit

_ALPHABET = string.ascii_letters + string.digits

Finding = dict[str, str]


def make(kind: str) -> str:
    """Return a new secret with 256 bit from the system's random source.

    A ``password`` is alphanumeric, so it needs no quoting in any file or URL;
    a ``key`` is the urlsafe base64 form of 32 bytes.
    """
    if kind == KEY:
        return base64.urlsafe_b64encode(secrets.token_bytes(policy.KEY_BYTES)).decode()
    if kind == PASSWORD:
        return "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))
    raise ValueError(f"unknown kind of secret: {kind}")


def is_empty(value: object) -> bool:
    """Return whether *value* counts as not given."""
    return value is None or (isinstance(value, str) and not value.strip())


def reason(value: object, kind: str | None) -> str | None:
    """Return why *value* is unfit as a secret, or None.

    With *kind* None (a secret that the roles do not know) its strength and form are not judged.
    """
    if is_empty(value):
        return "is empty"
    if not isinstance(value, str):
        return "is not a string; put it in quotes"
    return _JUDGES[kind](value)


def edit_command(inventory: str) -> str:
    """Return the command that opens the vault file of *inventory* in an editor."""
    return f"ansible-vault edit --vault-password-file ~/.tradingbot-vault {inventory}/group_vars/all/vault.yml"


def findings(
    values: Mapping[str, object],
    required: Mapping[str, str] | None = None,
    inventory: str = "inventories/prod",
) -> list[Finding]:
    """Return the problems of *values* (name to value) as preflight findings.

    *required* maps each name that must be there to its kind. Others may be empty, and are judged by what is known of
    them. *inventory* is the path that the suggested commands name.
    """
    needed = SECRETS if required is None else required
    kinds = {**OPTIONAL, **needed}
    generate = f"ansible-playbook tradingbot.stack.secrets -i {inventory} --vault-password-file ~/.tradingbot-vault"
    edit = edit_command(inventory)
    missing = [name for name in needed if name not in values]
    found = [{"what": ", ".join(missing), "why": "not set", "fix": generate}] if missing else []
    for name, value in values.items():
        why = reason(value, kinds.get(name))
        if why is None or (name not in needed and is_empty(value)):
            continue
        again = f" and delete its line, then: {generate}" if name in needed else " and give its real value"
        found.append({"what": name, "why": why, "fix": edit + again})
    return found + [
        {
            "what": ", ".join(same),
            "why": "have the same value: whoever learns one has them all",
            "fix": f"{edit} and delete the lines of all but the one in use, then: {generate}",
        }
        for same in policy.reused(values, values)
    ]
