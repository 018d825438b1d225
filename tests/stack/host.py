"""A host with a deployed stack: programs run on it, and what Docker, the backend and the database say there."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.testbed import hosts

PROJECT = "/opt/tradingbot"
COMPOSE = f"docker compose --project-directory {PROJECT}"
LABEL = "com.docker.compose.project=tradingbot"
# One connection for all commands: a login takes longer than most of them. One that a reboot has cut is given up.
SHARED = [
    *["-o", "ControlMaster=auto", "-o", f"ControlPath={hosts.KEY.parent}/%p", "-o", "ControlPersist=20"],
    *["-o", "ServerAliveInterval=5"],
]


def run_on(machine: hosts.Host, command: str, stdin: str = "", seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell *command* on the host as root, with *stdin* as its input."""
    remote = ["sudo", "sh", "-c", shlex.quote(command)]
    return subprocess.run(
        [*hosts.ssh(machine, *SHARED), *remote], input=stdin, check=False, capture_output=True, text=True, timeout=seconds
    )


def output_of(machine: hosts.Host, command: str, stdin: str = "", seconds: float = 60) -> str:
    """Return what *command* prints on the host; fails the test unless it succeeds."""
    done = run_on(machine, command, stdin, seconds)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


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
    # By the stack's network: from inside the container nobody but the superuser gets in.
    client = "psql -XAtq -v ON_ERROR_STOP=1 -h $(hostname -i) -U tradingbot_readonly -d tradingbot -f -"
    script = shlex.quote(f"read -r PGPASSWORD; export PGPASSWORD; exec {client}")
    return output_of(machine, f"{COMPOSE} exec -T postgres sh -c {script}", f"{password}\n{sql}\n").splitlines()


def wait_until(holds: Callable[[], bool], seconds: float, what: str, every: float = 0.1) -> float:
    """Wait until *holds*, asked *every* so many seconds; return how long it took. Fails the test after *seconds*."""
    start = time.monotonic()
    while not holds():
        waited = time.monotonic() - start
        assert waited < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(every)
    return time.monotonic() - start
