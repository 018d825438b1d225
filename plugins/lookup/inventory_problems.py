# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lookup that finds what an inventory has not filled in yet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory_problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: Preflight findings about what an inventory has not filled in
description:
  - Finds variables of the host that still hold C(CHANGE_ME), and files on the controller that are named but not there.
  - With C(image_digests_required) in the inventory, finds images that are not pinned by their digest, too.
  - Needs no connection to the host. Secrets are the matter of P(tradingbot.stack.secret_problems#lookup).
options:
  _terms:
    description: Not used.
    required: false
"""

EXAMPLES = r"""
- name: Refuse an inventory that is not filled in
  ansible.builtin.fail:
    msg: "{{ query('tradingbot.stack.inventory_problems') | tradingbot.stack.problems }}"
  when: query('tradingbot.stack.inventory_problems') | length > 0
"""

RETURN = r"""
_list:
  description: Findings with C(what), C(why) and C(fix).
  type: list
  elements: dict
"""

import os
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.lookup import LookupBase
from ansible_collections.tradingbot.stack.plugins.plugin_utils import inventory as rules
from ansible_collections.tradingbot.stack.plugins.plugin_utils import vault as vaults

# Variables of Ansible that hold those of other hosts, the host's answers, or ansible_host once more.
_NOT_OWN = {"hostvars", "vars", "groups", "ansible_facts", "ansible_ssh_host"}


class LookupModule(LookupBase):
    """Finds what is not filled in."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        variables = variables or {}
        inventory = vaults.shown_inventory(variables.get("ansible_inventory_sources") or [])
        own = {n: v for n, v in variables.items() if n not in _NOT_OWN and not n.startswith("vault_")}
        found = rules.placeholder_findings(own, inventory)
        for name in rules.FILES:
            if name in variables:
                path = str(self._templar.template(variables[name]))
                if not os.path.isfile(path):
                    found.append(rules.file_finding(name, path))
        if boolean(self._templar.template(variables.get("image_digests_required", False))):
            known = [name for names in rules.IMAGES.values() for name in names if name in variables]
            images = {name: str(self._templar.template(variables[name])) for name in known}
            found += rules.digest_findings(variables.get("group_names") or [], images)
        return found
