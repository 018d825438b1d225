"""What several tests of a deployed stack do: look at its containers, run programs on the host, call the API."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.testbed import hosts

ROOT = Path(__file__).resolve().parents[3]
PROJECT = "/opt/tradingbot"
# Molecule asks for colour, which would break up the words that tests look for.
PLAIN = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
COMPOSE = f"docker compose --project-directory {PROJECT}"
LABEL = "com.docker.compose.project=tradingbot"


def run_on(machine: hosts.Host, command: str, stdin: str = "", seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell *command* on the host as root, with *stdin* as its input."""
    remote = ["sudo", "sh", "-c", shlex.quote(command)]
    return subprocess.run(
        [*hosts.ssh(machine), *remote], input=stdin, check=False, capture_output=True, text=True, timeout=seconds
    )


def output_of(machine: hosts.Host, command: str, stdin: str = "", seconds: float = 60) -> str:
    """Return what *command* prints on the host; fails the test unless it succeeds."""
    done = run_on(machine, command, stdin, seconds)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def deploy(inventory: str, *arguments: str, playbook: str = "site.yml") -> subprocess.CompletedProcess[str]:
    """Run a playbook of the project on the host, with *arguments*."""
    return subprocess.run(
        ["ansible-playbook", playbook, "--inventory", inventory, *arguments],
        cwd=ROOT,
        env=os.environ | PLAIN,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def apply_role(host: Any, role: str, **variables: Any) -> str:
    """Apply one role to the host with *variables* on top of the inventory's; return the output."""
    play = {"hosts": host.backend.host, "become": True, "roles": [f"tradingbot.stack.{role}"]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(json.dumps([play]))
        file.flush()
        inventory = host.backend.ansible_inventory
        done = deploy(inventory, "--extra-vars", json.dumps(variables), playbook=file.name)
    return done.stdout + done.stderr


def active_slot(machine: hosts.Host) -> str:
    """Return the service of the backend's slot that gets the requests."""
    return f"backend-{json.loads(output_of(machine, f'cat {PROJECT}/backend/slots.json'))['active']}"


def slot_address(machine: hosts.Host) -> str:
    """Return the address of the backend's slot that gets the requests, as the host reaches it."""
    found: str = services(machine)["backend"]["NetworkSettings"]["Networks"]["tradingbot-network"]["IPAddress"]
    return found


def one_shot(machine: hosts.Host) -> str:
    """Return the beginning of a command that runs the backend's program once, in a container of its own."""
    record = json.loads(output_of(machine, f"cat {PROJECT}/backend/slots.json"))
    release = f"{PROJECT}/backend/releases/{record['worker']}.yaml"
    return f"COMPOSE_IGNORE_ORPHANS=1 docker compose -p tradingbot -f {release} run --rm --no-deps -T"


def inspect(host: Any, service: str) -> dict[str, Any]:
    """Return what Docker knows of a service's container."""
    with host.sudo():
        found: dict[str, Any] = json.loads(host.check_output(f"docker inspect tradingbot-{service}-1"))[0]
    return found


def services(machine: hosts.Host) -> dict[str, dict[str, Any]]:
    """Return what Docker knows of each container of the project, by service; the backend's slot is `backend`."""
    listing = f"docker ps --all --quiet --filter label={LABEL} --filter label=com.docker.compose.oneoff=False"
    listed = output_of(machine, f"{listing} | xargs docker inspect")
    found = {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in json.loads(listed)}
    slots = [name for name in found if name.startswith("backend-")]
    assert len(slots) <= 1, f"two slots at rest: {slots}"
    return {"backend" if name in slots else name: one for name, one in found.items()}


def worker_processes(machine: hosts.Host) -> list[str]:
    """Return the numbers, on the host, of the backend's workers."""
    server = output_of(machine, f"pgrep -P {services(machine)['backend']['State']['Pid']}")
    # Python's own helper for processes that are started anew is a child of the server, too.
    children = run_on(machine, f"ps -o pid=,args= --ppid {server}").stdout.splitlines()
    return [child.split()[0] for child in children if "resource_tracker" not in child]


def query(machine: hosts.Host, password: str, sql: str) -> list[str]:
    """Return the rows that the read-only user gets, from psql in the database's container.

    The password and the query go in by standard input: no command line shows them.
    """
    client = "psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -U tradingbot_readonly -d tradingbot -f -"
    script = shlex.quote(f"read -r PGPASSWORD; export PGPASSWORD; exec {client}")
    return output_of(machine, f"{COMPOSE} exec -T postgres sh -c {script}", f"{password}\n{sql}\n").splitlines()


def call(method: str, url: str, **options: Any) -> requests.Response:
    """Send a request through nginx; an API limit that other tests have used up is waited for."""
    for _ in range(30):
        answer = requests.request(method, url, verify=False, timeout=20, **options)
        if answer.status_code != 429:
            return answer
        time.sleep(int(answer.headers["Retry-After"]))
    raise AssertionError("still over the limit after 30 attempts")


@contextlib.contextmanager
def live_events(https_url: str, api_key: str, **options: Any) -> Iterator[ClientConnection]:
    """Open a WebSocket, with a ticket, that gets the user's events from now on."""
    with open_live(https_url, api_key, **options) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "ready"
        yield socket


def open_live(https_url: str, api_key: str, **options: Any) -> ClientConnection:
    """Get a ticket and open a WebSocket with it; the API limit that other tests have used up is waited for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = "wss" + https_url.removeprefix("https") + "/api/v1/ws"
    for _ in range(30):
        made = call("POST", f"{https_url}/api/v1/ws/tickets", headers={"X-API-Key": api_key})
        assert made.status_code == 201, made.text
        protocols = [Subprotocol(name) for name in made.json()["protocols"]]
        try:
            opened: ClientConnection = connect(address, ssl=context, subprotocols=protocols, open_timeout=20, **options)
            return opened
        except InvalidStatus as refused:
            # The handshake is a request, too, and counts against the same limit as the ticket before it.
            if refused.response.status_code != 429:
                raise
            time.sleep(int(refused.response.headers["Retry-After"]))
    raise AssertionError("still over the limit after 30 attempts")


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until *holds* and return how long it took, in seconds. Fails the test after *seconds*."""
    start = time.monotonic()
    while not holds():
        waited = time.monotonic() - start
        assert waited < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return time.monotonic() - start
