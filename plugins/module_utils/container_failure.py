# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Why a service's container is not well: what the engine says of it, and the end of its log, without secrets.

Runs on the host with nothing but Python's own library: modules and the command `tradingbot` share it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from . import failures, stack_services, target

LOG_LINES = 20
LOG_SECONDS = 10.0


def why(service: str, project_dir: Path, said: str = "") -> str:
    """Return *said*, what the engine says of the service's container, the end of its log, and known fixes."""
    secrets = secrets_of(project_dir)
    found = stack_services.containers(target.compose_project(project_dir))
    container = next((one for one in found or [] if stack_services.service_of(one) == service), None)
    if found is None:
        parts = [said, "The Docker engine does not answer: `systemctl status docker` on the host says why."]
    elif container is None:
        parts = [said, f"{service} has no container."]
    else:
        parts = [said, *story(container, secrets)]
    return failures.described("\n".join(part for part in parts if part), secrets)


def story(container: dict[str, Any], secrets: list[str]) -> list[str]:
    """Return what the engine says of a container, and the end of its log."""
    log = failures.end_of(failures.without_secrets(end_of_log(container["Id"]), secrets))
    return [*condition(container), f"The end of its log:\n{log}" if log else "Its log is empty."]


def secrets_of(project_dir: Path) -> list[str]:
    """Return the contents of the stack's secret files; none where they cannot be read."""
    try:
        return [path.read_text(errors="replace") for path in (project_dir / "secrets").iterdir() if path.is_file()]
    except OSError:
        return []


def end_of_log(identity: str) -> str:
    """Return the last lines of a container's log, or why there are none."""
    command = ["docker", "logs", "--tail", str(LOG_LINES), identity]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LOG_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"(it cannot be read: {error})"
    return done.stdout


def condition(container: dict[str, Any]) -> list[str]:
    """Return sentences for what the engine says of a container."""
    service, state = stack_services.service_of(container), container.get("State") or {}
    code, restarts = state.get("ExitCode") or 0, int(container.get("RestartCount") or 0)
    meaning = failures.EXIT_CODES.get(code, "")
    ended = f", exit code {code}{f' ({meaning})' if meaning else ''}" if code or not state.get("Running") else ""
    parts = [f"{service} is {state.get('Status', 'unknown')}{ended}."]
    if restarts:
        parts.append(f"It keeps ending: it has been started again {restarts} time{'s' if restarts > 1 else ''}.")
    if state.get("OOMKilled"):
        limit = int((container.get("HostConfig") or {}).get("Memory") or 0) >> 20
        parts.append(
            f"It ran out of memory{f', of which it has {limit} MiB' if limit else ''}."
            f" Fix: raise {stack_services.name_of_limit(service)}, and run site.yml."
        )
    if state.get("Error"):
        parts.append(f"The engine says: {state['Error']}")
    health = state.get("Health") or {}
    checks = health.get("Log") or []
    # One that went well before the container ended says nothing.
    if health.get("Status") != "healthy" and checks and checks[-1].get("ExitCode") != 0:
        output = failures.end_of(str(checks[-1].get("Output") or ""), lines=5) or "nothing"
        parts.append(f"Its health check ended with exit code {checks[-1].get('ExitCode')} and said: {output}")
    return parts
