# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that joins what a play has found on its hosts into one document."""

from __future__ import annotations

DOCUMENTATION = r"""
name: health_document
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.3.0
short_description: What a play has found on all its hosts, as one document
description:
  - Joins what M(tradingbot.stack.stack_health) has returned on each host of a play, registered as C(health).
  - A host that was not reached, or on which the module failed, is in the document too, with the reason.
positional: hostvars
options:
  _input:
    description: Names of the hosts, like C(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
  hostvars:
    description: Variables of the hosts, like C(hostvars).
    type: dict
    required: true
seealso:
  - module: tradingbot.stack.stack_health
"""

EXAMPLES = r"""
- name: Show what was found on all hosts
  ansible.builtin.debug:
    msg: "{{ ansible_play_hosts_all | tradingbot.stack.health_document(hostvars) | to_nice_json }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - C(healthy) tells whether all hosts are. C(hosts) has by name C(healthy), C(error) and what the module returned.
  type: dict
"""

from collections.abc import Mapping, Sequence
from typing import Any

# What Ansible adds to a result, and what is the rest in another form.
LEFT_OUT = {"changed", "failed", "invocation", "table", "sentences", "status", "warnings", "deprecations"}


def _one(variables: Mapping[str, Any]) -> dict[str, Any]:
    found = variables.get("health")
    if not isinstance(found, Mapping):
        return {"healthy": False, "error": "it was not looked at: the host was not reached"}
    if "healthy" not in found:
        return {"healthy": False, "error": str(found.get("msg") or "the module failed")}
    kept = {name: value for name, value in found.items() if name not in LEFT_OUT and not name.startswith("_")}
    return {"healthy": found["healthy"], "error": ""} | kept


def health_document(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found on *hosts* as one document."""
    found = {host: _one(hostvars.get(host, {})) for host in hosts}
    return {"healthy": all(one["healthy"] for one in found.values()), "hosts": found}


class FilterModule:
    """Filter of tradingbot.stack for what was found on hosts."""

    def filters(self) -> dict[str, object]:
        return {"health_document": health_document}
