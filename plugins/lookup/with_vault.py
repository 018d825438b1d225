# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lookup that refuses, with the way out, an inventory without hosts, or whose vault does not open."""

from __future__ import annotations

DOCUMENTATION = r"""
name: with_vault
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: A host pattern, once the inventory has hosts for it and its vault opens
description:
  - Refuses when an inventory is not there, or has no host for any of the groups. Ansible passes over a play without
    hosts and ends with success, so that a mistyped path would look like a run in which all was well.
  - Returns its term if every encrypted file below C(group_vars) and C(host_vars) of the inventory opens with the
    vault passwords of this run, and refuses otherwise.
  - For the C(hosts) of a playbook's first play. There Ansible has not read the variables of any host yet; when it
    does, it says neither which file does not open nor what to do.
options:
  _terms:
    description: Groups, separated by colons, each with an index like C([0]) if need be; or C(localhost).
    required: true
"""

EXAMPLES = r"""
- name: Check everything before the first change
  hosts: "{{ lookup('tradingbot.stack.with_vault', 'all') }}"
"""

RETURN = r"""
_list:
  description: The host pattern.
  type: list
  elements: str
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.parsing.vault import is_encrypted
from ansible.plugins.lookup import LookupBase
from ansible_collections.tradingbot.stack.plugins.plugin_utils import vault as vaults


def _encrypted_files(folder: str) -> Iterator[tuple[str, bytes]]:
    for kind in ("group_vars", "host_vars"):
        for path in sorted(Path(folder, kind).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                content = path.read_bytes()
                if is_encrypted(content):
                    yield str(path), content


def _refuse_without_hosts(pattern: str, groups: dict[str, list[str]], sources: list[str]) -> None:
    wanted = [name.partition("[")[0] for name in pattern.split(":")]
    missing = [source for source in sources if "," not in source and not Path(source).exists()]
    has_hosts = "localhost" in wanted or any(groups.get(name) for name in wanted)
    if has_hosts and not missing:
        return
    where = f"there is no {missing[0]}" if missing else f"{', '.join(sources) or 'the inventory'} has none"
    names = f"the group {wanted[0]}" if len(wanted) == 1 else f"one of the groups {', '.join(wanted)}"
    whom = "an inventory" if "localhost" in wanted else f"hosts in {names}"
    raise AnsibleError(f"This is for {whom}, and {where}. Pass yours, `-i inventories/prod`, with your host in it.")


class LookupModule(LookupBase):
    """Returns its terms when there are hosts, and the vault opens."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        listing = any(context.CLIARGS.get(word) for word in ("syntax", "listtasks", "listtags", "listhosts"))
        known = variables or {}
        sources = known.get("ansible_inventory_sources") or []
        for pattern in [] if listing else terms:
            _refuse_without_hosts(pattern, known.get("groups") or {}, sources)
        for folder in [] if listing else vaults.inventory_dirs(sources):
            for path, content in _encrypted_files(folder):
                try:
                    vault = vaults.vault_of(self._loader)
                except AnsibleError:
                    raise AnsibleError(
                        f"{path} is encrypted and no vault password was given. Pass the one that it was encrypted "
                        "with: `--vault-password-file ~/.tradingbot-vault` (or `--ask-vault-pass`)."
                    ) from None
                vaults.decrypt(vault, path, content)
        return terms
