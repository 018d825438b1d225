# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that turns preflight findings into a text for people."""

from __future__ import annotations

DOCUMENTATION = r"""
name: problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: Preflight findings as a numbered text
description:
  - Turns the findings of the roles' preflight into the message of a refusal.
options:
  _input:
    description: Findings, each with the keys C(what), C(why) and C(fix).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse to go on
  ansible.builtin.fail:
    msg: "{{ [{'what': 'port 443', 'why': 'nginx holds it', 'fix': 'stop it'}] | tradingbot.stack.problems }}"
"""

RETURN = r"""
_value:
  description: One numbered paragraph for each finding.
  type: str
"""

from collections.abc import Sequence

from ansible.errors import AnsibleFilterError


def problems(findings: Sequence[dict[str, str]]) -> str:
    """Return *findings* as numbered paragraphs.

    Raises AnsibleFilterError when a finding lacks ``what``, ``why`` or ``fix``.
    """
    for finding in findings:
        missing = {"what", "why", "fix"} - set(finding)
        if missing:
            raise AnsibleFilterError(f"a preflight finding lacks {', '.join(sorted(missing))}: {finding}")
    count = len(findings)
    head = f"{count} problem{'s' if count != 1 else ''} found; nothing has been changed."
    return "\n".join(
        [head] + [f"{n}. {f['what']}: {f['why']}\n   Way out: {f['fix']}" for n, f in enumerate(findings, start=1)]
    )


class FilterModule:
    """Filters of tradingbot.stack for preflight."""

    def filters(self) -> dict[str, object]:
        return {"problems": problems}
