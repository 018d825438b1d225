# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a host keeps of the backend's slots: the record, the releases, and the deploy log.

The record is the only truth. The Compose file and the web server's choice of a slot are derived from it, so a run that
was killed between two steps is finished, or taken back, by whoever reads the record next.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.tradingbot.stack.plugins.module_utils import failures, target
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import ChangeError

NETWORK = "tradingbot-network"


class SlotError(ChangeError):
    """What cannot be done to the slots, and why."""


@dataclass
class Record:
    """Which release each slot runs, which slot gets the requests, and which release the worker runs."""

    active: str | None = None
    slots: dict[str, str | None] = field(default_factory=dict)
    worker: str | None = None

    @property
    def release(self) -> str | None:
        """The release that gets the requests."""
        return self.slots.get(self.active) if self.active else None

    def leftovers(self) -> list[str]:
        """Return the slots that have a release and get no requests."""
        return [name for name, release in self.slots.items() if release and name != self.active]

    def as_dict(self) -> dict[str, Any]:
        """Return the record as it is stored."""
        return {"active": self.active, "slots": self.slots, "worker": self.worker}


@dataclass(frozen=True)
class Layout:
    """Where the backend's files are, and what its slots have in common.

    `addresses` are those of the slots on the stack's network; `publish` are ports in Compose's short form.
    """

    project_dir: Path
    addresses: dict[str, str]
    publish: tuple[str, ...] = ()

    @property
    def project(self) -> str:
        """The name of the Compose project, where Compose reads it. Raises SlotError when it is not there."""
        name = target.compose_project(self.project_dir)
        if not name:
            raise SlotError(f"{self.project_dir / '.env'} names no Compose project: run site.yml, which writes it")
        return name

    @property
    def folder(self) -> Path:
        """The folder of the backend."""
        return self.project_dir / "backend"

    @property
    def record_file(self) -> Path:
        """The record."""
        return self.folder / "slots.json"

    @property
    def compose_file(self) -> Path:
        """The Compose file that is derived from the record."""
        return self.folder / "compose.yaml"

    @property
    def releases(self) -> Path:
        """The folder of the kept releases."""
        return self.folder / "releases"

    @property
    def log_file(self) -> Path:
        """The deploy log."""
        return self.folder / "deploys.jsonl"

    @property
    def upstream_file(self) -> Path:
        """The web server's choice of a slot."""
        return self.project_dir / "nginx" / "live" / "upstream.conf"


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Replace *path* in one step, unless it holds *text* already; tell whether it was replaced."""
    if path.exists() and path.read_text() == text:
        return False
    with failures.naming(path):
        _replace(path, text, mode)
    return True


def _replace(path: Path, text: str, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_record(layout: Layout) -> Record:
    """Return the record; an empty one when there is none. Raises SlotError when it is no record."""
    slots: dict[str, str | None] = dict.fromkeys(layout.addresses)
    try:
        stored = json.loads(layout.record_file.read_text())
        record = Record(stored["active"], slots | dict(stored["slots"]), stored["worker"])
    except FileNotFoundError:
        return Record(slots=slots)
    except (ValueError, KeyError, TypeError) as error:
        raise SlotError(
            f"{layout.record_file} is not the record of the slots ({error}): put back a copy, or move it away and"
            " remove the containers backend-blue and backend-green, then run site.yml"
        ) from error
    if record.active is not None and not record.release:
        raise SlotError(
            f"{layout.record_file} says that {record.active} gets the requests, but names no release for it: put back a"
            " copy, or move it away and remove the containers backend-blue and backend-green, then run site.yml"
        )
    return record


def write_record(layout: Layout, record: Record) -> bool:
    """Store the record and derive the Compose file from it; tell whether anything changed."""
    changed = write(layout.record_file, json.dumps(record.as_dict(), indent=2) + "\n")
    return write(layout.compose_file, compose_text(layout, record)) or changed


def compose_text(layout: Layout, record: Record) -> str:
    """Return the Compose file that follows from the record."""
    used = sorted({release for release in [*record.slots.values(), record.worker] if release})
    if not used:
        return "# Derived from slots.json: no release runs yet.\nservices: {}\n"
    lines = ["# Derived from slots.json, which a deploy changes; what is changed here is lost.", "services:"]
    for slot, release in record.slots.items():
        if release:
            lines += [
                f"  backend-{slot}:",
                f"    extends: {{file: releases/{release}.yaml, service: backend}}",
            ]
            # A slot that the host had, and is to have no longer, has no address, and publishes nothing.
            if slot in layout.addresses:
                lines.append(f"    networks: {{tradingbot: {{ipv4_address: {layout.addresses[slot]}}}}}")
                if layout.publish:
                    lines.append(f"    ports: {json.dumps(list(layout.publish))}")
    if record.worker:
        lines += ["  worker:", f"    extends: {{file: releases/{record.worker}.yaml, service: worker}}"]
    lines += ["networks:", f"  tradingbot: {{name: {NETWORK}, external: true}}", "secrets:"]
    for name in sorted({secret for release in used for secret in read_release(layout, release)["secrets"]}):
        lines.append(f"  {name}: {{file: {json.dumps(str(layout.project_dir / 'secrets' / name))}}}")
    return "\n".join(lines) + "\n"


def read_release(layout: Layout, release: str) -> dict[str, Any]:
    """Return what is known of a kept release. Raises SlotError when it is not kept."""
    try:
        found: dict[str, Any] = json.loads((layout.releases / f"{release}.json").read_text())
    except (FileNotFoundError, ValueError) as error:
        known = ", ".join(item["release"] for item in kept(layout)) or "none"
        raise SlotError(f"the release {release} is not kept on this host; kept are: {known}") from error
    return found


def write_release(layout: Layout, release: str, about: dict[str, Any]) -> None:
    """Keep what is known of a release, on top of what was known already."""
    path = layout.releases / f"{release}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    write(path, json.dumps(known | about | {"release": release}, indent=2) + "\n")


def all_releases(layout: Layout) -> list[dict[str, Any]]:
    """Return the releases that the host has files of, the last used first, and those that never ran at the end."""
    found = []
    for path in layout.releases.glob("*.json"):
        with contextlib.suppress(ValueError):  # half a file cannot be used
            found.append(json.loads(path.read_text()))
    return sorted(found, key=lambda release: float(release.get("used", 0)), reverse=True)


def kept(layout: Layout) -> list[dict[str, Any]]:
    """Return the releases that one can go back to, the last used first: those that have run."""
    return [release for release in all_releases(layout) if "used" in release]


def choose(layout: Layout, record: Record, wanted: str) -> str:
    """Return the release that *wanted* names: a release, a version, or, when empty, the one that ran before.

    Raises SlotError when there is none, or when several releases have that version.
    """
    others = [item for item in kept(layout) if item["release"] != record.release]
    known = ", ".join(item["release"] for item in others) or "none"
    if not wanted:
        if not others:
            raise SlotError(
                f"there is no release to go back to: only {record.release or 'none'} is kept. Deploy the version that"
                " you want, by playbooks/deploy.yml"
            )
        return str(others[0]["release"])
    found = [item["release"] for item in kept(layout) if wanted == item["release"]]
    found = found or [item["release"] for item in others if wanted == item["version"]]
    if not found:
        raise SlotError(f"no release {wanted} is kept on this host; there are: {known}")
    if len(found) > 1:
        raise SlotError(f"several releases have the version {wanted}: say which of {', '.join(found)}")
    return str(found[0])


def append_log(layout: Layout, entry: dict[str, Any]) -> None:
    """Add a line to the deploy log."""
    # Reasons quote the end of a container's log: for root alone.
    with failures.naming(layout.log_file):
        handle = os.open(layout.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
