# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a replacement of nginx's container does to a host: two containers, and the rules between clients and them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible_collections.tradingbot.stack.plugins.module_utils import (
    container_failure,
    failures,
    stack_network,
    stack_services,
    target,
)
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import NO_ENGINE, ChangeError

SERVICE = "nginx"
# What Compose says that it would do, as in `Container tradingbot-nginx-1  Recreate`.
PLANNED = re.compile(r"Container \S+ +(Recreat|Creat|Start)(?:e|ed|ing)?\b")
ENGINE_TIMEOUT = 600.0


class Engine:
    """nginx on a host: the service's own container, and the second one that serves meanwhile."""

    def __init__(
        self, project_dir: Path, pull: str = "missing", wait_timeout: int = 60, stop_timeout: float = 120
    ) -> None:
        self._folder = project_dir
        self._pull = pull
        self._wait_timeout = wait_timeout
        self._stop_timeout = stop_timeout
        self._project = target.compose_project(project_dir)
        self._second_name = stack_services.second_nginx_name(self._project)

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=ENGINE_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise ChangeError(f"`{' '.join(command)}` did not end within {ENGINE_TIMEOUT:.0f} s") from error
        if done.returncode:
            secrets = container_failure.secrets_of(self._folder)
            said = failures.end_of(failures.without_secrets(done.stderr or done.stdout, secrets), lines=8)
            raise ChangeError(f"`{' '.join(command)}` failed: {said}")
        # Compose tells what it does on the one, and what it was asked for on the other.
        return done.stdout + done.stderr

    def _up(self, *options: str) -> str:
        pull = [] if self._pull == "policy" else ["--pull", "missing" if self._pull == "always" else self._pull]
        up = ("up", "--detach", "--no-deps", "--quiet-pull", *pull)
        return self._run("docker", "compose", "--progress", "plain", *options, *up, SERVICE)

    def fetch_image(self) -> None:
        """Have the newest image of the name, where that is asked for each time."""
        if self._pull == "always":
            self._run("docker", "compose", "pull", "--quiet", SERVICE)

    def planned(self) -> str:
        """Return what Compose would do to the container: recreate or start; empty when it runs as described."""
        return planned_in(self._up("--dry-run"))

    def up(self) -> None:
        """Make, recreate or start the container, and wait until it is healthy."""
        self._up()
        self._wait_until_healthy("own")

    def _containers(self) -> list[dict[str, Any]]:
        found = stack_services.containers(self._project, one_offs=True)
        if found is None:
            raise ChangeError(NO_ENGINE)
        return found

    def _container(self, which: str) -> dict[str, Any] | None:
        """Return the service's container, or the second one; of two, as a killed Compose leaves, the one that runs."""
        ours = [one for one in self._containers() if stack_services.service_of(one) == SERVICE]
        is_it = {"own": lambda one: not stack_services.is_one_off(one), "second": stack_services.is_second_nginx}[which]
        return max(filter(is_it, ours), key=_runs, default=None)

    def serves(self, which: str) -> bool:
        """Return whether nginx in a container answers."""
        container = self._container(which)
        if container is None or not _runs(container):
            return False
        connection = http.client.HTTPConnection(_address(container), stack_services.NGINX_PORT, timeout=3)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def is_healthy(self) -> bool:
        """Return whether the engine says so of the service's own container."""
        return _health(self._container("own")) == "healthy"

    def _wait_until_healthy(self, which: str) -> None:
        until = time.monotonic() + self._wait_timeout
        while True:
            container = self._container(which)
            health = _health(container)
            if health == "healthy":
                return
            if container is None or health != "starting" or time.monotonic() > until:
                raise ChangeError(self._why(container, f"nginx was not healthy within {self._wait_timeout} s"))
            time.sleep(0.2)

    def _why(self, container: dict[str, Any] | None, said: str) -> str:
        if container is None:
            return f"{said}: its container is gone"
        return "\n".join([said, *container_failure.story(container, container_failure.secrets_of(self._folder))])

    # The second nginx.

    def has_second(self) -> bool:
        """Return whether there is a second nginx, running or not."""
        return self._container("second") is not None

    def start_second(self) -> None:
        """Start a second nginx from the definition on disk, and wait until it is healthy."""
        # Published on loopback, at any port, so that the engine's own rules let packets from outside pass to it.
        ports = [f"--publish=127.0.0.1::{inside}" for _, _, inside in self._published()]
        run = ("run", "--detach", "--no-deps", "--quiet-pull", "--name", self._second_name)
        self._run("docker", "compose", "--progress", "plain", *run, *dict.fromkeys(ports), SERVICE)
        self._wait_until_healthy("second")

    def stop_second(self) -> None:
        """Have the second nginx finish what it has in hand, and remove it."""
        container = self._container("second")
        if container is None:
            return
        if _runs(container):
            self._run("docker", "kill", "--signal", "SIGQUIT", container["Id"])
            until = time.monotonic() + self._stop_timeout
            while _runs(self._container("second")) and time.monotonic() < until:
                time.sleep(0.2)
        self._run("docker", "rm", "--force", container["Id"])

    # Where clients go.

    def _published(self) -> list[tuple[str, int, int]]:
        return [one for one in stack_network.published(self._container("own") or {}) if ":" not in one[0]]

    def leads_to_second(self) -> bool:
        """Return whether new connections are led to a second nginx."""
        return bool(_looked(stack_network.handover))

    def lead_to_second(self) -> None:
        """Lead new connections of the published ports to the second nginx; those that are open stay where they are."""
        to = _address(self._container("second") or {})
        script = handover_rules(self._published(), to, stack_network.loopback_is_translated())
        _looked(lambda: stack_network.output("nft", "--file", "-", stdin=script))

    def lead_back(self) -> None:
        """Let new connections reach the service's own container again."""
        _looked(stack_network.end_handover)

    def reconnect_clients(self) -> None:
        """Have the backend tell the clients of WebSockets to come back (1012); earlier releases do not know how."""
        service = stack_services.read_slots(self._folder).service
        for container in self._containers():
            if stack_services.service_of(container) == service and _runs(container):
                # Its first process may be Docker's own init; who holds connections are the server's workers.
                for pid in target.family(int(container["State"]["Pid"])):
                    if target.catches(pid, signal.SIGUSR1):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGUSR1)


def planned_in(said: str) -> str:
    """Return what Compose says that it would do."""
    words = PLANNED.findall(said)
    return "recreate" if "Recreat" in words else "start" if words else ""


def handover_rules(published: list[tuple[str, int, int]], to: str, loopback: bool) -> str:
    """Return rules that lead new connections of published ports to the address *to*.

    They are asked before the engine's, and the first translation of a connection counts. Clients on the host itself do
    not pass prerouting; those over loopback only where the engine translates them as well.
    """
    rules = [
        f"{f'ip daddr {address}' if address else 'fib daddr type local'} tcp dport {port} dnat to {to}:{inside}"
        for address, port, inside in published
    ]
    if not rules:
        return ""
    table = " ".join(stack_network.HANDOVER)
    own = rules if loopback else [f"ip daddr != 127.0.0.0/8 {rule}" for rule in rules]
    return "\n".join(
        [
            f"table {table}",
            f"delete table {table}",
            f"table {table} {{",
            "chain prerouting {",
            "type nat hook prerouting priority dstnat - 5;",
            *rules,
            "}",
            "chain output {",
            "type nat hook output priority -105;",
            *own,
            "}",
            "}",
            "",
        ]
    )


def _runs(container: dict[str, Any] | None) -> bool:
    return bool(((container or {}).get("State") or {}).get("Running"))


def _health(container: dict[str, Any] | None) -> str:
    """Return what the engine says of a container's health; its state when it does not run."""
    state = (container or {}).get("State") or {}
    return str((state.get("Health") or {}).get("Status", "")) if _runs(container) else str(state.get("Status", "gone"))


def _address(container: dict[str, Any]) -> str:
    found = [one["IPAddress"] for one in stack_network.networks(container) if one.get("IPAddress")]
    if not found:
        raise ChangeError("nginx has no address on the stack's network: `docker inspect` on the host says why")
    return str(found[0])


def _looked(work: Any) -> Any:
    try:
        return work()
    except stack_network.LookError as error:
        raise ChangeError(f"rules that lead clients to nginx: {error}") from error
