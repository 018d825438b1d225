# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters that read `docker compose ps --format json`. Each is documented in the file of its name beside this one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

COLUMNS = {"SERVICE": "Service", "STATE": "State", "HEALTH": "Health", "UP": "Status", "IMAGE": "Image"}


def _services(text: str) -> list[dict[str, Any]]:
    stripped = text.strip()
    try:
        if stripped.startswith("["):
            return list(json.loads(stripped))
        return [json.loads(line) for line in stripped.splitlines()]
    except ValueError as error:
        raise AnsibleFilterError(f"this is not the output of `docker compose ps --format json`: {error}") from error


def service_table(text: str) -> str:
    """Return the services as a table with one line each. Raises AnsibleFilterError on other text."""
    rows = [list(COLUMNS)] + [
        [str(service.get(key, "")) for key in COLUMNS.values()]
        for service in sorted(_services(text), key=lambda service: str(service.get("Service")))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def service_problems(text: str, expected: Sequence[str]) -> list[str]:
    """Return one sentence for each service of *expected* that is not well. Raises AnsibleFilterError on other text."""
    found = {str(service.get("Service")): service for service in _services(text)}
    problems = []
    for name in expected:
        service = found.get(name)
        if service is None:
            problems.append(f"{name} has no container: run site.yml, or `docker compose up -d {name}`")
        elif service.get("State") != "running" or service.get("Health") != "healthy":
            state = " ".join(str(service.get(key)) for key in ("State", "Health") if service.get(key))
            problems.append(f"{name} is {state}: see `docker compose logs --tail 50 {name}`")
    return problems


class FilterModule:
    """Filters of tradingbot.stack for the state of services."""

    def filters(self) -> dict[str, object]:
        return {"service_problems": service_problems, "service_table": service_table}
