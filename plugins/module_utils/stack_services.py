# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The stack's containers as Docker knows them, and the backend's slots as a deploy has recorded them.

Runs on the host with nothing but Python's own library: the command `tradingbot` has a copy.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import target

Problem = dict[str, str]

LABEL = "com.docker.compose"
VERSION_LABEL = "org.opencontainers.image.version"
SOCKET = target.DOCKER_SOCKET
# Of nginx in its container: answers whatever name is asked for, also where TLS is off.
NGINX_PORT = 8080
LOCK = Path("/run/tradingbot/deploy.lock")
# As deploy_lock has it, for a lock that does not say.
LOCK_SECONDS = 3600
OURS = re.compile(r"backend(-\w+)?|worker")


@dataclass(frozen=True)
class Slots:
    """What a host says of the backend's slots; `error` tells why it says nothing.

    `chosen` is the slot that the web server is told to use, '' without a web server.
    """

    active: str = ""
    releases: dict[str, str | None] = field(default_factory=dict)
    worker: str | None = None
    chosen: str = ""
    error: str = ""

    @property
    def service(self) -> str:
        """The Compose service that gets the requests."""
        return f"backend-{self.active}" if self.active else ""


def problem(what: str, why: str, fix: str) -> Problem:
    """Return a finding in the form that the filter tradingbot.stack.problems takes."""
    return {"what": what, "why": why, "fix": fix}


def read_slots(project_dir: Path) -> Slots:
    """Return what backend/slots.json and nginx/live/upstream.conf say."""
    record = project_dir / "backend" / "slots.json"
    upstream = project_dir / "nginx" / "live" / "upstream.conf"
    try:
        stored = json.loads(record.read_text())
        active, releases = str(stored["active"] or ""), dict(stored["slots"])
        if active and active not in releases:
            raise ValueError(f"it has no slot {active}")
        worker = stored["worker"]
    except FileNotFoundError:
        return Slots(error=f"{record} is not there")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Slots(error=f"{record} is not the record of the slots ({error})")
    try:
        found = re.search(r"^\s*map\s[^#]*\bdefault\s+backend-(\w+)\s*;", upstream.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return Slots(active, releases, worker)
    except OSError as error:
        return Slots(active, releases, worker, "?", f"{upstream} cannot be read ({error})")
    return Slots(active, releases, worker, found.group(1) if found else "?")


def deploy_lock(path: Path = LOCK, now: float | None = None) -> dict[str, Any]:
    """Return who is deploying just now: `who`, `purpose` and `since` (UTC); empty when nobody is.

    The lock says how long it is valid; the next deploy takes over what is older, and so it counts for nothing here.
    """
    try:
        found = json.loads(path.read_text(errors="replace"))
        since, valid = float(found["since"]), float(found.get("valid_seconds", LOCK_SECONDS))
        who, purpose = str(found["who"]), str(found.get("purpose") or "a deploy")
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if (time.time() if now is None else now) - since > valid:
        return {}
    return {"who": who, "purpose": purpose, "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(since))}


def containers(project: str, socket: str = SOCKET, one_offs: bool = False) -> list[dict[str, Any]] | None:
    """Return what Docker knows of each container of a Compose project; None when no engine answers.

    Those of `docker compose run` belong to no service that stays, and are left out unless asked for.
    """
    filters = urllib.parse.quote(json.dumps({"label": [f"{LABEL}.project={project}"]}))
    listed = target.docker_get(f"/containers/json?all=true&filters={filters}", socket)
    if not isinstance(listed, list):
        return None
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(lambda one: target.docker_get(f"/containers/{one['Id']}/json", socket), listed))
    # A container may go between the two questions.
    known = [one for one in found if isinstance(one, dict)]
    return [one for one in known if one_offs or not is_one_off(one)]


def is_one_off(container: dict[str, Any]) -> bool:
    """Return whether a container is of `docker compose run`."""
    return labels(container).get(f"{LABEL}.oneoff") == "True"


def labels(container: dict[str, Any]) -> dict[str, str]:
    """Return the labels of a container, its image's included."""
    return dict(container.get("Config", {}).get("Labels") or {})


def service_of(container: dict[str, Any]) -> str:
    """Return the Compose service that a container belongs to."""
    return str(labels(container).get(f"{LABEL}.service", container.get("Name", "?").lstrip("/")))


def is_second_nginx(container: dict[str, Any]) -> bool:
    """Return whether a container is the nginx that serves while the service's own is replaced.

    Others of `docker compose run nginx` are an operator's.
    """
    project = labels(container).get(f"{LABEL}.project")
    is_named_so = container.get("Name") == f"/{second_nginx_name(str(project))}"
    return service_of(container) == "nginx" and is_one_off(container) and is_named_so


def second_nginx_name(project: str) -> str:
    """Return the name of the container that serves while nginx's own is replaced."""
    return f"{project}-nginx-second"


def running_nginx(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the containers of nginx that run and may have clients: the service's own, and the second one.

    Each has to be told of a change of what it has read; one that starts later reads it then.
    """
    ours = [one for one in found if service_of(one) == "nginx" and (not is_one_off(one) or is_second_nginx(one))]
    return [one for one in ours if one["State"].get("Running") and not one["State"].get("Restarting")]


def runs_on(container: dict[str, Any], found: list[dict[str, Any]]) -> bool:
    """Return whether a container is among those *found* later, and has not started again."""
    was = container["Id"], container["State"].get("Pid")
    return any((one["Id"], one["State"].get("Pid")) == was for one in found)


def is_up_to_date(service: str, project_dir: Path, socket: str = SOCKET) -> bool:
    """Return whether `docker compose up --wait` of a service would find nothing to do; False when it cannot be seen."""
    found = [one for one in containers(target.compose_project(project_dir), socket) or [] if service_of(one) == service]
    if len(found) != 1:
        return False
    state, networks = found[0].get("State") or {}, (found[0].get("NetworkSettings") or {}).get("Networks") or {}
    image = target.docker_get(f"/images/{found[0]['Config']['Image']}/json", socket) or {}
    return (
        state.get("Status") == "running"
        and (state.get("Health") or {}).get("Status") == "healthy"
        and found[0].get("Image") == image.get("Id")
        and bool(networks)
        and all(
            network.get("NetworkID") == (target.docker_get(f"/networks/{name}", socket) or {}).get("Id")
            for name, network in networks.items()
        )
        and labels(found[0]).get(f"{LABEL}.config-hash") == definition_hash(service, project_dir)
    )


def definition_hash(service: str, project_dir: Path) -> str:
    """Return the hash of a service's definition, which Compose writes on the containers that it makes; '' without."""
    command = ["docker", "compose", "config", "--hash", service]
    try:
        done = subprocess.run(
            command, cwd=project_dir, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    name, _, found = done.stdout.strip().partition(" ")
    return found if done.returncode == 0 and name == service else ""


def version_of(container: dict[str, Any]) -> str:
    """Return what runs: of our own images the version in their label, of others the tag."""
    service, image = service_of(container), str(container.get("Config", {}).get("Image", ""))
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    told = labels(container).get(VERSION_LABEL, "")
    # The label of another image may come from the image that it is made from.
    return (told or tag if OURS.fullmatch(service) else tag or told) or "?"


def memory_used(stats: Any) -> int | None:
    """Return the bytes of a container that the kernel cannot let go of, from what the engine's API tells; or None.

    File caches do not count: PostgreSQL's fill whatever the limit leaves.
    """
    memory = stats.get("memory_stats") if isinstance(stats, dict) else None
    if not memory or "usage" not in memory:
        return None
    detail = memory.get("stats") or {}
    # cgroup v1 has a total_ of each, which counts the groups below, too.
    caches = [detail.get(f"total_{name}", detail.get(name, 0)) for name in ("inactive_file", "active_file")]
    return max(int(memory["usage"]) - sum(int(size) for size in caches), 0)


def describe(container: dict[str, Any], socket: str = SOCKET) -> dict[str, Any]:
    """Return what people want to know of a container: state, health, restarts, version, memory in MiB."""
    state = container.get("State") or {}
    health = str((state.get("Health") or {}).get("Status", ""))
    used = None
    if state.get("Running"):
        path = f"/containers/{container['Id']}/stats?stream=false&one-shot=true"
        used = memory_used(target.docker_get(path, socket))
    limit = int((container.get("HostConfig") or {}).get("Memory") or 0)
    return {
        "service": service_of(container),
        "container": str(container.get("Name", "")).lstrip("/"),
        "id": container["Id"],
        "state": str(state.get("Status", "unknown")),
        "health": health,
        "running": bool(state.get("Running")) and not state.get("Restarting"),
        "healthy": bool(state.get("Running")) and health == "healthy",
        "exit_code": None if state.get("Running") else state.get("ExitCode"),
        "out_of_memory": bool(state.get("OOMKilled")),
        "restarts": int(container.get("RestartCount") or 0),
        "version": version_of(container),
        "image": str(container.get("Config", {}).get("Image", "")),
        "memory_mb": None if used is None else round(used / (1 << 20)),
        "memory_limit_mb": limit >> 20 or None,
        "memory_percent": round(100 * used / limit) if used is not None and limit else None,
    }


def describe_all(found: list[dict[str, Any]], socket: str = SOCKET) -> list[dict[str, Any]]:
    """Return `describe` of each container, in the order of the services."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return sorted(pool.map(lambda one: describe(one, socket), found), key=lambda row: str(row["service"]))


def expected_services(services: list[str], slots: Slots) -> list[str]:
    """Return the Compose services that must run, the backend as its slot."""
    return [slots.service or "backend" if name == "backend" else name for name in services]


def service_problems(rows: list[dict[str, Any]], expected: list[str], memory_percent: int) -> list[Problem]:
    """Return what is wrong with the services that must run."""
    found: dict[str, dict[str, Any]] = {row["service"]: row for row in rows}
    problems = []
    for name in expected:
        row = found.get(name)
        if row is None:
            problems.append(
                problem(name, "it has no container", f"`tradingbot up {name}` on the host, or run site.yml")
            )
            continue
        look = f"`tradingbot logs --tail 50 {name}` on the host says why"
        if not row["running"]:
            ended = "" if row["exit_code"] is None else f", exit code {row['exit_code']}"
            memory = ", it was out of memory" if row["out_of_memory"] else ""
            problems.append(problem(name, f"it is {row['state']}{ended}{memory}", f"{look}; `tradingbot up {name}`"))
        elif not row["health"]:
            problems.append(problem(name, "it has no health check, so nobody knows", "run site.yml, which sets one"))
        elif not row["healthy"]:
            problems.append(problem(name, f"it runs, and its health check says {row['health']}", look))
        if (row["memory_percent"] or 0) >= memory_percent:
            why = f"it uses {row['memory_mb']} of {row['memory_limit_mb']} MiB, {row['memory_percent']}%"
            variable = name_of_limit(name)
            problems.append(
                problem(f"{name}'s memory", why, f"raise {variable} and run site.yml, or find out what grew")
            )
    return problems


def name_of_limit(service: str) -> str:
    """Return the variable that limits a service's memory."""
    if service.startswith("backend"):
        return "backend_memory_mb"
    return {"worker": "backend_worker_memory_mb", "nginx": "nginx_memory"}.get(service, f"{service}_memory_mb")


def slot_problems(slots: Slots, rows: list[dict[str, Any]], lock: dict[str, Any]) -> list[Problem]:
    """Return what does not fit together: the record, the web server's choice, and the containers that are there.

    While somebody holds the deploy lock the second slot and the worker's release are theirs to care for.
    """
    again = "run playbooks/deploy.yml or site.yml again: it finishes, or takes back, what was interrupted"
    if slots.error:
        return [problem("backend slots", slots.error, "run site.yml, or put a copy of the file back")]
    if not slots.active:
        return [problem("backend slots", "no slot gets requests: the backend was never started in full", again)]
    problems = []
    if slots.chosen and slots.chosen != slots.active:
        why = f"the record says {slots.service}, and nginx/live/upstream.conf says backend-{slots.chosen}"
        problems.append(problem("backend slots", why, again))
    if lock:
        return problems
    there = {row["service"] for row in rows}
    for name, release in slots.releases.items():
        service = f"backend-{name}"
        if name != slots.active and (release or service in there):
            why = f"it is left over from an interrupted deploy ({release or 'no release is recorded'})"
            problems.append(problem(service, why, again))
    if "backend" in there:
        problems.append(problem("backend", "its container is left over from before there were slots", "run site.yml"))
    release = slots.releases.get(slots.active)
    if slots.worker != release:
        why = f"it runs {slots.worker or 'nothing'}, and {slots.service} runs {release or 'nothing'}"
        problems.append(problem("worker", why, again))
    return problems
