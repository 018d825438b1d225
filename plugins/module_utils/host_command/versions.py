# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `version`: what runs, what is kept to go back to, and the last deploys."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from .. import stack_services
from ..stack_table import table
from .stack import OK, Stack

DEPLOYS = 5


def version(stack: Stack, given: argparse.Namespace) -> int:
    """Show it."""
    slots = stack.slots
    running = [
        {"service": row["service"], "version": row["version"], "image": row["image"], "state": row["state"]}
        for row in stack_services.describe_all(stack.containers())
    ]
    found = {
        "running": running,
        "active": slots.active or None,
        "releases": releases(stack.project_dir / "backend" / "releases"),
        "deploys": deploys(stack.project_dir / "backend" / "deploys.jsonl"),
    }
    print(json.dumps(found, indent=2) if given.json else text(found, slots))
    return OK


def releases(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of the kept releases, the newest first; one that cannot be read has an `error`."""
    found = []
    for path in folder.glob("*.json"):
        try:
            told = json.loads(path.read_text())
            known = {name: told.get(name) for name in ("version", "image", "schema_head", "source")}
            found.append({"release": path.stem, "error": "", "used": moment(told.get("used"))} | known)
        except (OSError, ValueError, AttributeError) as error:
            found.append({"release": path.stem, "error": f"{path.name} cannot be read: {error}"})
    return sorted(found, key=lambda one: str(one.get("used") or ""), reverse=True)


def moment(seconds: Any) -> str | None:
    """Return a time in seconds since 1970 as in the deploy log."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if isinstance(seconds, (int, float)) else None


def deploys(path: Path, most: int = DEPLOYS) -> list[dict[str, Any]]:
    """Return the last entries of the deploy log, the newest first. Lines that a full disk has cut are left out."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    entries = []
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
        if len(entries) == most:
            break
    return entries


def text(found: dict[str, Any], slots: stack_services.Slots) -> str:
    """Return it all as tables."""
    running = [[one["service"], one["version"], one["state"], one["image"]] for one in found["running"]]
    parts = [_titled("Running", ["SERVICE", "VERSION", "STATE", "IMAGE"], running)]
    kept = [
        [
            one["release"],
            str(one.get("version") or one["error"]),
            str(one.get("schema_head") or ""),
            str(one.get("used") or ""),
            _use(one["release"], slots),
        ]
        for one in found["releases"]
    ]
    parts.append(_titled("Kept releases", ["RELEASE", "VERSION", "SCHEMA", "BEGAN TO RUN", "IN USE"], kept))
    names = ("time", "action", "from", "to", "seconds", "result", "who")
    done = [[str(one.get(name) if one.get(name) is not None else "-") for name in names] for one in found["deploys"]]
    parts.append(_titled(f"Last {DEPLOYS} deploys", [name.upper() for name in names], done))
    return "\n\n".join(parts)


def _use(release: str, slots: stack_services.Slots) -> str:
    uses = [f"backend-{slot}" for slot, runs in slots.releases.items() if runs == release]
    return ", ".join([*uses, *(["worker"] if slots.worker == release else [])])


def _titled(title: str, heads: list[str], rows: list[list[str]]) -> str:
    return f"{title}\n" + (table([heads, *rows], indent="  ") if rows else "  none")
