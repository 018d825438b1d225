# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Renders and judges roles as on the smallest server of the specification: two cores and 4 GB."""

from __future__ import annotations

from typing import Any

import rendering
from ansible.parsing.dataloader import DataLoader

FACTS = {"memtotal_mb": 3915, "processor_vcpus": 2}


def _host(role: str) -> dict[str, Any]:
    return {
        "ansible_facts": FACTS,
        "ansible_search_path": [str(rendering.ROOT / "roles" / role)],
        "inventory_hostname": "testhost",
    }


def render(role: str, template: str, **variables: Any) -> str:
    """Return the text of the role's *template* on this host."""
    return rendering.render(role, template, **(_host(role) | variables))


def evaluate(role: str, expression: str, **variables: Any) -> Any:
    """Return what *expression* comes to on this host."""
    return rendering.evaluate(role, expression, **(_host(role) | variables))


def problems(role: str, **variables: Any) -> list[dict[str, Any]]:
    """Return the findings of the role's preflight, given what its earlier tasks registered."""
    path = rendering.ROOT / "roles" / role / "tasks" / "preflight.yml"
    last = DataLoader().load_from_file(str(path), trusted_as_template=True)[-1]
    known = dict(last["vars"]) | {"__found": last["ansible.builtin.set_fact"][f"__{role}_problems"]} | variables
    found = evaluate(role, "__found", **known)
    assert isinstance(found, list)
    return found
