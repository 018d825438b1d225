# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: the host's settings, its services and containers, and how a refusal is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from .. import stack_health, stack_services

OK, FAILED, USAGE, BUSY = 0, 1, 2, 3
SETTINGS = Path("/etc/tradingbot/command.json")


class RefusedError(Exception):
    """What cannot be done, why, the way out, and the exit code that says so."""

    def __init__(self, what: str, why: str, fix: str, code: int = FAILED) -> None:
        super().__init__(f"{what}: {why}\n  Way out: {fix}")
        self.code = code


@dataclass(frozen=True)
class Stack:
    """The stack of this host."""

    project_dir: Path
    project: str
    services: tuple[str, ...]
    thresholds: dict[str, Any] = field(default_factory=dict)
    firewall: bool = True

    @property
    def slots(self) -> stack_services.Slots:
        """What the host says of the backend's slots."""
        return stack_services.read_slots(self.project_dir)

    def compose(self, *arguments: str) -> list[str]:
        """Return a command of Docker Compose for the whole project, for a terminal or for a file."""
        plain = [] if sys.stdout.isatty() else ["--ansi", "never"]
        return ["docker", "compose", *plain, "--project-directory", str(self.project_dir), *arguments]

    def compose_services(self, names: list[str]) -> list[str]:
        """Return Compose's services for what the user names, all without a name; `backend` is the active slot."""
        slots = self.slots
        known = [*self.services, *(f"backend-{slot}" for slot in slots.releases if "backend" in self.services)]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise RefusedError(
                ", ".join(unknown), "not a service of this host", f"name one of: {', '.join(known)}", USAGE
            )
        if "backend" in (names or self.services) and not slots.service:
            why = slots.error or "no slot has been started yet"
            raise RefusedError("backend", why, "run site.yml on the controller, or name the other services")
        wanted = [slots.service if name == "backend" else name for name in names or self.services]
        return list(dict.fromkeys(wanted))

    def containers(self, one_offs: bool = False) -> list[dict[str, Any]]:
        """Return what Docker knows of the stack's containers."""
        found = stack_services.containers(self.project, one_offs=one_offs)
        if found is None:
            raise RefusedError(
                "Docker", "no engine answers", "`systemctl status docker` says why; `systemctl start docker`"
            )
        return found

    def running(self, name: str) -> str:
        """Return the identity of a service's running container."""
        (service,) = self.compose_services([name])
        for one in self.containers():
            if stack_services.service_of(one) == service and (one.get("State") or {}).get("Running"):
                return str(one["Id"])
        raise RefusedError(
            service, "it does not run", f"`tradingbot up {name}`, or `tradingbot logs {name}` to see why"
        )

    def refuse_while_deploying(self, services: list[str], ignore: bool, dead: str = "--ignore-lock") -> None:
        """Raise RefusedError when somebody deploys and a service is one that a deploy changes."""
        lock = stack_services.deploy_lock()
        if ignore or not lock or not any(stack_services.OURS.fullmatch(name) for name in services):
            return
        why = f"{lock['who']} has been at it since {lock['since']} ({lock['purpose']})"
        raise RefusedError("deploy", why, f"wait for it; if that run is dead: {dead}", BUSY)

    def health_settings(self) -> stack_health.Settings:
        """Return the settings of the health check."""
        return stack_health.Settings(
            project_dir=str(self.project_dir),
            project=self.project,
            services=list(self.services),
            thresholds=self.thresholds,
            firewall=self.firewall,
        )


def read_settings(path: Path = SETTINGS) -> Stack:
    """Return the stack that the role docker_host has laid out here."""
    again = "run site.yml on the controller, which writes it"
    try:
        found = json.loads(path.read_text())
        services = [str(name) for name in found["services"]]
        if "backend" in services and "worker" not in services:
            services.insert(services.index("backend") + 1, "worker")
        return Stack(
            Path(found["project_dir"]),
            str(found["project"]),
            tuple(services),
            dict(found["thresholds"]),
            bool(found["firewall"]),
        )
    except OSError as error:
        raise RefusedError(str(path), f"it cannot be read ({error.strerror})", again) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(str(path), f"it is not what it should be ({error})", again) from error


def refuse_without_root(verb: str) -> None:
    """Raise RefusedError unless root asks: the engine's socket and the stack's secrets are for root only."""
    if os.geteuid() != 0:
        raise RefusedError(verb, "only root may do it", f"run it with sudo: `sudo tradingbot {verb} …`", USAGE)


def without_docker(error: OSError) -> RefusedError:
    """Return the refusal of a host without Docker."""
    return RefusedError("docker", str(error.strerror), "install Docker: run site.yml on the controller")


def call(command: list[str]) -> int:
    """Run a program in the foreground and return its exit code."""
    sys.stdout.flush()
    try:
        return subprocess.call(command)
    except OSError as error:
        raise without_docker(error) from error


def become(command: list[str]) -> NoReturn:
    """Go on as another program, which gets the terminal and the signals, and whose exit code is ours."""
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise without_docker(error) from error


def in_container(identity: str, command: list[str], *options: str) -> list[str]:
    """Return a command of Docker that runs *command* in a container, with a terminal when there is one."""
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    return ["docker", "exec", "--interactive", *terminal, *options, identity, *command]
