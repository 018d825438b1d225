# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that judges the secret files of the backend."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backend_secret_problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.4.0
short_description: Preflight findings about the backend's secrets
description:
  - Finds what the backend would refuse at its start, by the backend's own rules.
  - Returns names and reasons, never values.
options:
  _input:
    description: Names and contents of the secret files; C(schema_database_url) is the address that migrations use.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse secrets that the backend would refuse
  ansible.builtin.fail:
    msg: "{{ __backend_secrets | tradingbot.stack.backend_secret_problems | tradingbot.stack.problems }}"
  when: __backend_secrets | tradingbot.stack.backend_secret_problems | length > 0
"""

RETURN = r"""
_value:
  description: Findings with C(what), C(why) and C(fix).
  type: list
  elements: dict
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from ansible_collections.tradingbot.stack.backend.src.tradingbot.core import secret_policy as policy
from ansible_collections.tradingbot.stack.plugins.plugin_utils.secrets import Finding, is_empty

# Not a setting of the backend's: the container of a migration has it as its database_url.
OWNERS = "schema_database_url"
RULES = {
    **policy.SETTINGS,
    OWNERS: policy.SETTINGS["database_url"]._replace(
        fix="take group_vars/all/00-wiring.yml of this version, of the collection's inventories/prod, into yours"
    ),
}


def backend_secret_problems(secrets: Mapping[str, object]) -> list[Finding]:
    """Return what is wrong with *secrets* (name of the file to content), as preflight findings."""
    found = []
    for name, value in secrets.items():
        rule = RULES[name]
        missing = None if rule.is_optional else "is not set"
        why = missing if is_empty(value) else rule.problem(str(value))
        if why is None and name == OWNERS and user_of(value) == user_of(secrets["database_url"]):
            why = "has the same role as backend_database_url: the running service could drop its own tables"
        if why is not None:
            found.append({"what": f"backend_{name}", "why": why, "fix": rule.fix})
    return found + [
        {
            "what": ", ".join(f"backend_{name}" for name in same),
            "why": "have the same value: whoever learns one has them all",
            "fix": "make another one for all but one of them",
        }
        for same in policy.reused(secrets, policy.OURS)
    ]


def user_of(url: object) -> str | None:
    """Return the user in *url*; None when it cannot be read."""
    try:
        return urlsplit(str(url)).username
    except ValueError:
        return None


class FilterModule:
    """Filters of tradingbot.stack for the backend's secrets."""

    def filters(self) -> dict[str, object]:
        return {"backend_secret_problems": backend_secret_problems}
