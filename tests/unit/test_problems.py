# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The text of a refusal."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter.problems import problems


def test_numbers_each_finding_with_reason_and_way_out() -> None:
    text = problems(
        [
            {"what": "port 443", "why": "held by apache2", "fix": "systemctl stop apache2"},
            {"what": "disk", "why": "full", "fix": "docker image prune"},
        ]
    )
    assert text.splitlines() == [
        "2 problems found; nothing has been changed.",
        "1. port 443: held by apache2",
        "   Way out: systemctl stop apache2",
        "2. disk: full",
        "   Way out: docker image prune",
    ]


def test_counts_one_problem_in_the_singular() -> None:
    assert problems([{"what": "a", "why": "b", "fix": "c"}]).startswith("1 problem found;")


@pytest.mark.parametrize("key", ["what", "why", "fix"])
def test_refuses_a_finding_without(key: str) -> None:
    finding = {"what": "a", "why": "b", "fix": "c"}
    del finding[key]
    with pytest.raises(AnsibleFilterError, match=f"lacks {key}"):
        problems([finding])
