# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that tells what a change of the backend's slots did. Documented in the file of its name beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def slot_steps(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each step, with its seconds. Raises AnsibleFilterError on another thing than the result."""
    try:
        if not result["changed"]:
            return [f"{result['release']} runs already: nothing had to be changed"]
        steps = [f"{step['seconds']:6.1f} s  {step['step']}" for step in result["steps"]]
        total = sum(step["seconds"] for step in result["steps"])
        kept = ", ".join(release["release"] for release in result["kept"])
        runs = f"{result['from'] or 'nothing'} → {result['release']} (slot {result['active']}); kept: {kept}"
        return [*steps, f"{total:6.1f} s  in all", runs]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"this is not a result of tradingbot.stack.backend_slots: {error}") from error


class FilterModule:
    """Filters of tradingbot.stack for changes of slots."""

    def filters(self) -> dict[str, object]:
        return {"slot_steps": slot_steps}
