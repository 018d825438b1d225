# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lookup that says why a task failed, without the secrets of the host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: failure
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.4.0
short_description: Why a task failed, without secrets
description:
  - Returns message, exit code and the end of what a failed task has printed, and the fix where the cause is known.
  - Masks the values of all variables of the host that hold secrets, and what looks like one.
  - For the C(rescue) of a task with C(no_log), whose own result Ansible hides.
options:
  _terms:
    description: Results of tasks, like C(ansible_failed_result).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Write a secret
  block:
    - name: Write it
      ansible.builtin.copy:
        content: "{{ vault_redis_password }}"
        dest: /run/password
        mode: "0400"
      no_log: true
  rescue:
    - name: Say why it cannot be written
      ansible.builtin.fail:
        msg: "{{ lookup('tradingbot.stack.failure', ansible_failed_result) }}"
"""

RETURN = r"""
_raw:
  description: The text.
  type: list
  elements: str
"""

import re
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.tradingbot.stack.plugins.module_utils import failures

# Variables with secret values: the vault's, and those of the roles that are made of them.
SECRET = re.compile(
    r"vault_.*|(docker_host|postgres|redis|backend|nginx)_"
    r"(.*password|.*secret|.*_key|.*_key_old|.*dsn|notify_urls|.*database_url|redis_url)"
)
# Not for secrets, but it may hold one; what is shorter than a token is a setting.
ENVIRONMENT = "backend_extra_environment"


class LookupModule(LookupBase):
    """Says why a task failed."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        secrets: list[str] = []
        for name, value in (variables or {}).items():
            if SECRET.fullmatch(name) or name == ENVIRONMENT:
                try:
                    # Here, for a dict is templated value by value.
                    found = list(failures.texts([self._templar.template(value)]))
                except AnsibleError:
                    # It may be why the task failed; there is no value to mask then.
                    continue
                shortest = failures.SHORTEST_TOKEN if name == ENVIRONMENT else 0
                secrets += [text for text in found if len(text) >= shortest]
        results = [term if isinstance(term, Mapping) else {"msg": str(term)} for term in terms]
        return [failures.failure_text(result, secrets) for result in results]
