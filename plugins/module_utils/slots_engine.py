# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a change of slots does to a host: containers by Docker Compose, requests to a slot, the web server's choice."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.tradingbot.stack.plugins.module_utils import (
    container_failure,
    failures,
    stack_services,
    target,
)
from ansible_collections.tradingbot.stack.plugins.module_utils import slots_record as records
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import NO_ENGINE

PORT = 8001
ESTABLISHED = "01"
APPLY = ["sh", "/etc/tradingbot/nginx/apply.sh"]
THROUGH = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5", "http://127.0.0.1:8081/upstream"]


class State(NamedTuple):
    """What Docker says of a container."""

    running: bool
    restarts: int
    pid: int


class Engine:
    """The host of a layout. Commands that take longer than `timeout` seconds are given up."""

    def __init__(self, layout: records.Layout, timeout: float = 600) -> None:
        self._layout = layout
        self._timeout = timeout

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=self._layout.project_dir,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=self._timeout,
                # A release's own file does not name the other services of the project.
                env={**os.environ, "COMPOSE_IGNORE_ORPHANS": "true"},
            )
        except subprocess.TimeoutExpired as error:
            raise records.SlotError(f"`{' '.join(command)}` did not end within {self._timeout:.0f} s") from error

    def _compose(self, *arguments: str) -> str:
        command = ("docker", "compose", *arguments)
        done = self._run(*command)
        if done.returncode != 0:
            said = failures.described(self._end_of(done.stderr or done.stdout))
            raise records.SlotError(f"`{' '.join(command)}` failed: {said}")
        return done.stdout

    def _end_of(self, said: str) -> str:
        # Masked as a whole: half of a secret is not recognised.
        secrets = container_failure.secrets_of(self._layout.project_dir)
        return failures.end_of(failures.without_secrets(said, secrets), lines=8)

    def up(self, *services: str) -> None:
        """Make and start the containers of services, or replace those whose definition changed."""
        self._compose("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull", *services)

    def remove(self, service: str) -> None:
        """Stop a service with SIGTERM, as long as its grace period allows, and remove its container."""
        self._compose("rm", "--stop", "--force", service)

    def stop_container(self, service: str) -> None:
        """Stop a container of the project that no Compose file describes any more."""
        self._run("docker", "stop", "--time", "40", self._identity(service))

    def start_container(self, service: str) -> None:
        """Start such a container again."""
        self._run("docker", "start", self._identity(service))

    def remove_container(self, service: str) -> None:
        """Remove such a container."""
        self._run("docker", "rm", "--force", self._identity(service))

    def state(self, service: str) -> State | None:
        """Return the state of a service's container; None when there is none."""
        identity = self._identity(service)
        if not identity:
            return None
        found = target.docker_get(f"/containers/{identity}/json", timeout=self._timeout)
        if found is None:
            return None
        return State(found["State"]["Running"], found["RestartCount"], found["State"]["Pid"])

    def _identity(self, service: str) -> str:
        # Asked over the engine's socket: it is asked often while a slot starts, and the command takes a core from that.
        labels = {"project": self._layout.project, "service": service, "oneoff": "False"}
        filters = {"label": [f"com.docker.compose.{name}={value}" for name, value in labels.items()]}
        resource = f"/containers/json?all=true&filters={urllib.parse.quote(json.dumps(filters))}"
        found = target.docker_get(resource, timeout=self._timeout)
        if found is None:
            raise records.SlotError(NO_ENGINE)
        return str(found[0]["Id"]) if found else ""

    def why(self, service: str) -> str:
        """Return what the engine says of a service that is not well, and the end of its log."""
        return container_failure.why(service, self._layout.project_dir)

    def request(self, slot: str, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Send a request to a slot; return the status and the text of the answer, 0 and the reason without one."""
        connection = http.client.HTTPConnection(self._layout.addresses[slot], PORT, timeout=5)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
        finally:
            connection.close()

    def worker_is_healthy(self) -> bool:
        """Ask the worker for a sign of life."""
        return self._run("docker", "compose", "exec", "-T", "worker", "tradingbot", "health", "worker").returncode == 0

    def oldest_schema_user(self, release: str) -> str | None:
        """Return the oldest schema revision whose code can live with the database; None when there is no schema.

        Asks the worker that runs, and when that does not answer a single run of *release*.
        """
        ask = ("tradingbot", "status", "--json")
        done = self._run("docker", "compose", "exec", "-T", "worker", *ask)
        if done.returncode != 0:
            file = str(self._layout.releases / f"{release}.yaml")
            once = ("-p", self._layout.project, "-f", file, "run", "--rm", "--no-deps", "-T", "tool")
            done = self._run("docker", "compose", *once, *ask)
        if done.returncode != 0:
            raise records.SlotError(
                "the database did not say what its schema is, and going back could break it:"
                f" {self._end_of(done.stderr)}\n`sudo tradingbot health` on the host shows what does not answer"
            )
        oldest = json.loads(done.stdout)["schema"]["oldest"]
        return None if oldest is None else str(oldest)

    def open_requests(self, slot: str) -> int:
        """Return how many of the web server's connections to a slot are in use by something but a WebSocket."""
        proxies = self._proxies()
        if not proxies or slot not in self._layout.addresses:
            return 0
        wanted = f"{_hexadecimal(self._layout.addresses[slot])}:{PORT:04X}"
        tables = [Path(f"/proc/{proxy['State']['Pid']}/net/tcp").read_text() for proxy in proxies]
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        connections = sum(row[2] == wanted and row[3] == ESTABLISHED for row in rows)
        return max(connections - self._websockets(slot), 0)

    def _proxies(self) -> list[dict[str, Any]]:
        """Return the web server's containers that run: two when a replacement of it was interrupted."""
        found = stack_services.containers(self._layout.project, one_offs=True)
        if found is None:
            raise records.SlotError(NO_ENGINE)
        return stack_services.running_nginx(found)

    def _websockets(self, slot: str) -> int:
        _, metrics = self.request(slot, "GET", "/metrics")
        found = re.findall(r"^tradingbot_websocket_connections(?:\{[^}]*\})? ([0-9.]+)$", metrics, re.MULTILINE)
        return int(sum(float(number) for number in found))

    def chosen_slot(self) -> str | None:
        """Return the slot that the web server is told to use, "" when none is; None on a host without web server."""
        if len(self._layout.addresses) < 2:
            return None
        if not self._layout.upstream_file.exists():
            return ""
        found = re.search(r"default backend-(\w+);", self._layout.upstream_file.read_text())
        return found.group(1) if found else ""

    def let_proxy_read(self) -> list[str]:
        """Give what the web server reads again at a change its mode, where that was taken away; return the names.

        Its role would do so, but comes later in a run of site.yml.
        """
        folder = self._layout.upstream_file.parents[1]
        mended = []
        for name in ("conf", "conf/apply.sh", "conf/nginx.conf", "live", "live/maintenance.conf", "live/upstream.conf"):
            path = folder / name
            if path.exists():
                mode = 0o755 if path.is_dir() else 0o644
                if ~path.stat().st_mode & mode & 0o005:
                    path.chmod(mode)
                    mended.append(name)
        return mended

    def choose_slot(self, slot: str, tell: bool = True) -> None:
        """Send the web server's requests to a slot, and see that they arrive there; only write that unless *tell*.

        Raises SlotError when it does not take the choice; then it is told the former one again.
        """
        path = self._layout.upstream_file
        # The role of the web server may come later: then it finds the choice.
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else None
        records.write(path, upstream_text(slot))
        if not tell:
            return
        said = self._tell_proxies()
        if said:
            if before is not None:
                records.write(path, before)
            self._tell_proxies()
            raise records.SlotError(said)

    def _tell_proxies(self) -> str:
        """Have the web server take what is written; return why one of its containers does not, '' when all do."""
        for proxy in self._proxies():
            for program in (APPLY, THROUGH):
                command = ("docker", "exec", str(proxy["Id"]), *program)
                done = self._run(*command)
                # One that has ended meanwhile reads it when it starts again.
                if done.returncode != 0 and stack_services.runs_on(proxy, self._proxies()):
                    said = failures.described(self._end_of(done.stderr or done.stdout))
                    return f"`{' '.join(command)}` failed: {said}"
        return ""

    def images(self) -> list[str]:
        """Return the names of the backend's images on this host."""
        names = self._run(
            "docker", "image", "ls", "--filter", "reference=tradingbot-backend", "--format", "{{.Repository}}:{{.Tag}}"
        )
        return [name for name in names.stdout.split() if not name.endswith("<none>")]

    def remove_image(self, name: str) -> bool:
        """Remove an image's name, and the image with its last name; tell whether Docker did."""
        return self._run("docker", "image", "rm", name).returncode == 0


def upstream_text(slot: str) -> str:
    """Return the web server's choice of a slot."""
    return f'# Written by a deploy.\nmap "" $active_backend {{ default backend-{slot}; }}\n'


def _hexadecimal(address: str) -> str:
    # proc(5): the address is a number in the machine's byte order, which is little-endian where Docker runs.
    return "".join(f"{int(part):02X}" for part in reversed(address.split(".")))


def service_of(slot: str) -> str:
    """Return the Compose service of a slot."""
    return f"backend-{slot}"
