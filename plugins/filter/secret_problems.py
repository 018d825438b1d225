# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that judges secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secret_problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: Preflight findings about secrets
description:
  - Finds secrets that are missing, empty, placeholders, short, of little variety, of a wrong form, or used twice.
  - Returns names and reasons, never values.
options:
  _input:
    description: Names and values.
    type: dict
    required: true
  required:
    description:
      - Names that must be there and their kinds, V(password) or V(key).
      - Defaults to all secrets that the roles of this collection need.
    type: dict
  inventory:
    description: Path of the inventory that the suggested commands name.
    type: str
    default: inventories/prod
"""

EXAMPLES = r"""
- name: Show what is wrong with two secrets
  ansible.builtin.debug:
    msg: "{{ {'a': 'changeme', 'b': ''} | tradingbot.stack.secret_problems(required={}) }}"
"""

RETURN = r"""
_value:
  description: Findings with C(what), C(why) and C(fix).
  type: list
  elements: dict
"""

from ansible_collections.tradingbot.stack.plugins.plugin_utils import secrets as rules


class FilterModule:
    """Filters of tradingbot.stack for secrets."""

    def filters(self) -> dict[str, object]:
        return {"secret_problems": rules.findings}
