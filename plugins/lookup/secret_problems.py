# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lookup that judges all vault_* variables of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret_problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: Preflight findings about the secrets of a host
description:
  - Passes all variables whose name starts with C(vault_) to the filter P(tradingbot.stack.secret_problems#filter),
    also those that are undefined or cannot be computed.
  - Returns names and reasons, never values.
options:
  _terms:
    description: Not used.
    required: false
"""

EXAMPLES = r"""
- name: Refuse weak secrets
  ansible.builtin.fail:
    msg: "{{ query('tradingbot.stack.secret_problems') | tradingbot.stack.problems }}"
  when: query('tradingbot.stack.secret_problems') | length > 0
"""

RETURN = r"""
_list:
  description: Findings with C(what), C(why) and C(fix).
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.tradingbot.stack.plugins.plugin_utils import secrets as rules
from ansible_collections.tradingbot.stack.plugins.plugin_utils import vault as vaults


class LookupModule(LookupBase):
    """Finds the problems of the secrets."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        variables = variables or {}
        inventory = vaults.shown_inventory(variables.get("ansible_inventory_sources") or [])
        values: dict[str, object] = {}
        broken: list[dict[str, str]] = []
        for name in variables:
            if not name.startswith("vault_"):
                continue
            try:
                values[name] = self._templar.template(variables[name])
            except AnsibleError:
                # The error may quote the value: only the name goes on.
                broken.append(
                    {
                        "what": name,
                        "why": "cannot be computed: it names something undefined or does not decrypt",
                        "fix": f"{rules.edit_command(inventory)} and put its line right",
                    }
                )
        required = {name: kind for name, kind in rules.SECRETS.items() if name not in [b["what"] for b in broken]}
        return broken + rules.findings(values, required, inventory)
