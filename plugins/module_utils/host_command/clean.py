# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `clean`: removes stopped containers of the stack and images of the backend that no kept release runs.

It never touches volumes, and nothing that it has not named.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import stack_services, target
from ..stack_health import last_line, run
from ..stack_table import table
from .stack import FAILED, OK, USAGE, RefusedError, Stack
from .versions import releases

REPOSITORY = "tradingbot-backend"
STOPPED = ("created", "exited", "dead")
TIMEOUT = 120.0
DEAD = "deploy anew with -e backend_deploy_take_over=true"


@dataclass(frozen=True)
class Item:
    """Something to remove: what Docker calls it, and how large it is at most."""

    kind: str
    name: str
    identity: str
    size: int

    @property
    def command(self) -> list[str]:
        """How it is removed. Without force, Docker itself refuses what is in use; without -v, volumes stay."""
        return ["docker", "rm" if self.kind == "container" else "rmi", self.identity]


def clean(stack: Stack, given: argparse.Namespace) -> int:
    """Name what goes, ask, and remove it."""
    stack.refuse_while_deploying(["backend"], ignore=False, dead=DEAD)
    items = found(stack)
    if not items:
        print("Nothing to remove.")
        return OK
    rows = [[item.kind, item.name, _size(item.size)] for item in items]
    print(table([["WHAT", "NAME", "SIZE"], *rows]))
    print("Logs go with their containers; volumes and data stay. Images share layers: less than the sum gets free.")
    if not given.yes and not agreed(len(items)):
        print("Nothing was removed.")
        return FAILED
    # Somebody may have deployed while the question was open.
    stack.refuse_while_deploying(["backend"], ignore=False, dead=DEAD)
    still = {item.identity for item in found(stack)}
    return remove([item for item in items if item.identity in still])


def agreed(count: int) -> bool:
    """Ask the user; nobody to ask is a refusal."""
    if not sys.stdin.isatty():
        raise RefusedError(
            "clean", "there is no terminal to ask on, and nothing was removed", "--yes says yes to all", USAGE
        )
    try:
        return input(f"Remove these {count}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def remove(items: list[Item]) -> int:
    """Remove each; tell which could not be."""
    code = OK
    for item in items:
        done, out, err = run(item.command, TIMEOUT)
        if done == 0:
            print(f"removed {item.kind} {item.name}")
        else:
            print(f"{item.kind} {item.name} stays: {last_line(err or out)}", file=sys.stderr)
            code = FAILED
    return code


def found(stack: Stack) -> list[Item]:
    """Return what may go: stopped containers, and images that neither a kept release nor a container needs."""
    containers = stack.containers(one_offs=True)
    stopped = [one for one in containers if (one.get("State") or {}).get("Status") in STOPPED]
    items = [_container(one) for one in stopped]
    if "backend" in stack.services:
        items += _images(kept_releases(stack), {one["Id"] for one in stopped})
    return items


def kept_releases(stack: Stack) -> list[dict[str, Any]]:
    """Return the kept releases. Raises RefusedError unless the image of every one of them is known."""
    folder: Path = stack.project_dir / "backend" / "releases"
    known = releases(folder)
    broken = [one["error"] or f"{one['release']}.json names no image" for one in known if not one.get("image")]
    slots = stack.slots
    recorded = {release for release in (*slots.releases.values(), slots.worker) if release}
    broken += [f"{name}.json is not there" for name in sorted(recorded - {one["release"] for one in known})]
    if slots.error:
        broken.append(slots.error)
    if broken:
        why = f"it is not known which images are needed: {'; '.join(broken)}"
        raise RefusedError("clean", why, "run site.yml on the controller, which writes the record of what runs")
    return known


def repository(name: str) -> str:
    """Return an image's name as Docker lists it, without tag and digest."""
    plain = name.partition("@")[0].removeprefix("docker.io/")
    path, colon, tag = plain.rpartition(":")
    return path if colon and "/" not in tag else plain


def _container(one: dict[str, Any]) -> Item:
    name = str(one.get("Name", "")).lstrip("/")
    with_size = target.docker_get(f"/containers/{one['Id']}/json?size=true", timeout=30)
    size = with_size.get("SizeRw") if isinstance(with_size, dict) else None
    return Item("container", name, str(one["Id"]), int(size or 0))


def _images(kept: list[dict[str, Any]], going: set[str]) -> list[Item]:
    """Return the backend's images without use. Every container counts, also those of other projects.

    A pulled image has two names: ours, and the one in the registry, which a release knows as its source.
    """
    sources = {str(one["source"]) for one in kept if one.get("source")}
    needed = {str(one["image"]) for one in kept} | sources
    ours = {REPOSITORY, *map(repository, sources)}
    listed = target.docker_get("/images/json", stack_services.SOCKET, 30)
    everywhere = target.docker_get("/containers/json?all=true", stack_services.SOCKET, 30)
    if not isinstance(listed, list) or not isinstance(everywhere, list):
        raise RefusedError("clean", "Docker does not list its images", "`systemctl status docker` says why")
    used = {one["ImageID"] for one in everywhere if one["Id"] not in going}
    items = []
    for image in listed:
        names = _names(image)
        if image["Id"] not in used and not needed & set(names):
            size = int(image.get("Size") or 0)
            items += [Item("image", name, name, size) for name in names if repository(name) in ours]
    return sorted(items, key=lambda item: item.name)


def _names(image: dict[str, Any]) -> list[str]:
    """Return the names that have to go before an image does; a tag takes the digests of its repository along."""
    tags = [str(name) for name in image.get("RepoTags") or []]
    tagged = {repository(name) for name in tags}
    return tags + [name for name in image.get("RepoDigests") or [] if repository(name) not in tagged]


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
