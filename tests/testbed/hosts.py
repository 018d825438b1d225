"""Target hosts: a bare Debian machine each, reached over SSH on 127.0.0.1 as an unprivileged user with sudo."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import engine, images, machine, registry, saved
from .shell import STATE, TestbedError, only_one, output, run, say, step

USER = "deploy"
KEY = STATE / "ssh" / "id_ed25519"
KNOWN_HOSTS = STATE / "ssh" / "known_hosts"
# Enough for systemd and an engine inside; `privileged` asks for more than some machines can give.
CAPABILITIES = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYSLOG", "SYS_MODULE", "DAC_READ_SEARCH"]


@dataclass(frozen=True)
class Host:
    """How to reach a target host. Ports are on 127.0.0.1."""

    name: str
    address: str
    ssh_port: int
    ports: dict[str, int]
    user: str = USER
    identity_file: str = str(KEY)
    known_hosts: str = str(KNOWN_HOSTS)


def container(name: str) -> str:
    """Return the name of the container that is the host *name*."""
    return f"tradingbot-host-{name}"


@dataclass(frozen=True)
class Start:
    """What a new host starts from: a bare Debian, or a saved host, whose secrets then go to a folder."""

    suite: str = "trixie"
    saved: str = ""
    secrets: Path = Path()


def create(name: str, start: Start | None = None, publish: dict[int, int] | None = None) -> Host:
    """Make the host *name* unless it is there, and wait until SSH lets the operator in.

    publish: port on the host → port on 127.0.0.1 (0: any free one). A host that never ran, or that cannot be reached,
    is recreated. Raises TestbedError.
    """
    ensure_key()
    start = start or Start()
    state = _state(name)
    if state in ("", "created", "dead"):
        remove(name)
        _run(name, start, publish or {})
    elif state != "running":
        with step(f"starting the host {name} again"):
            run(["docker", "start", container(name)], check=False)
    try:
        return _wait_for_ssh(name)
    except TestbedError as error:
        if not state:
            raise
        say(f"the host {name} is broken and is recreated: {error}")
    remove(name)
    _run(name, start, publish or {})
    return _wait_for_ssh(name)


def _run(name: str, start: Start, publish: dict[int, int]) -> None:
    with only_one():
        image = images.target(start.suite)
    # Ports are chosen here and not by the engine, which would choose others after a reboot.
    ports = {port: local or _free_port() for port, local in {22: 0, **publish}.items()}
    for host_port, local_port in ports.items():
        if not _is_free(local_port):
            raise TestbedError(
                f"port {local_port} of 127.0.0.1 is taken, and the host's port {host_port} was to be published there; "
                "stop what listens there (`ss -ltnp`) or choose another port"
            )
    if start.saved and not saved.is_there(start.saved):
        say(f"no host has been saved as {start.saved}: {name} starts from a bare one")
        start = Start(start.suite)
    origin = f"saved as {start.saved}" if start.saved else f"Debian {start.suite}"
    with step(f"starting the host {name} ({origin})"):
        if start.saved:
            saved.restore(start.saved, container(name), start.secrets)
            image = saved.image(start.saved)
        run(
            [
                *["docker", "run", "--detach", "--name", container(name), "--hostname", name],
                *["--label", "tradingbot.testbed=host", "--network", registry.NETWORK],
                *[word for cap in CAPABILITIES for word in ("--cap-add", cap)],
                *["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"],
                *["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", "--cgroupns", "private"],
                *["--volume", f"{saved.disk(container(name), 'docker')}:/var/lib/docker"],
                *["--volume", f"{saved.disk(container(name), 'containerd')}:/var/lib/containerd"],
                *["--volume", "/lib/modules:/lib/modules:ro"],
                *["--add-host", f"registry:{registry.ADDRESS}"],
                *["--env", f"TESTBED_NAMESERVERS={' '.join(machine.nameservers())}"],
                *["--env", f"TESTBED_AUTHORIZED_KEY={KEY.with_suffix('.pub').read_text().strip()}"],
                *[word for port, local in ports.items() for word in ("--publish", f"127.0.0.1:{local}:{port}")],
                image,
            ]
        )


def describe(name: str) -> Host:
    """Return how to reach the host *name*. Raises TestbedError when there is none."""
    if not _state(name):
        raise TestbedError(f"there is no host {name!r}; `python -m tests.testbed status` lists those that are there")
    found = json.loads(output(["docker", "inspect", container(name)]))[0]["NetworkSettings"]
    ports = {port.split("/")[0]: int(bindings[0]["HostPort"]) for port, bindings in found["Ports"].items() if bindings}
    return Host(name, found["Networks"][registry.NETWORK]["IPAddress"], ports["22"], ports)


def reboot(name: str) -> Host:
    """Reboot the host: systemd goes down in order, then boots again."""
    describe(name)
    run(["docker", "restart", "--time", "90", container(name)])
    return _wait_for_ssh(name)


def save(name: str, secrets: Path) -> Host:
    """Shut the host down, save it under its name with the folder *secrets*, and boot it. Raises TestbedError."""
    describe(name)
    run(["docker", "stop", "--time", "90", container(name)])
    saved.save(container(name), name, secrets)
    run(["docker", "start", container(name)])
    return _wait_for_ssh(name)


def remove(name: str) -> None:
    """Remove the host *name* and its disks. Nothing happens when there is none."""
    if _state(name):
        run(["docker", "rm", "--force", "--volumes", container(name)])
        say(f"removed the host {name}")
    for disk in saved.DISKS:
        run(["docker", "volume", "rm", "--force", saved.disk(container(name), disk)], check=False)


def names() -> list[str]:
    """Return the names of the hosts that are there."""
    listed = output(["docker", "ps", "--all", "--filter", "label=tradingbot.testbed=host", "--format", "{{.Names}}"])
    return sorted(line.removeprefix("tradingbot-host-") for line in listed.splitlines())


def ssh(host: Host, *options: str) -> list[str]:
    """Return the command that opens a shell on *host*."""
    return [
        *["ssh", "-i", host.identity_file, "-p", str(host.ssh_port), "-o", "BatchMode=yes"],
        *["-o", f"UserKnownHostsFile={host.known_hosts}", "-o", "StrictHostKeyChecking=accept-new"],
        *options,
        f"{host.user}@127.0.0.1",
    ]


def as_json(host: Host) -> str:
    """Return *host* as JSON, for Molecule's playbooks and for people."""
    return json.dumps(asdict(host), indent=2)


def ensure_key() -> None:
    """Make the key pair of the operator, once."""
    if not KEY.exists():
        engine.apt_install("openssh-client")
        KEY.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tradingbot-testbed", "-f", str(KEY)])


def _state(name: str) -> str:
    """Return what the engine calls the state of the host's container, '' when there is none."""
    found = run(["docker", "container", "inspect", "--format", "{{.State.Status}}", container(name)], check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_ssh(name: str) -> Host:
    log = f"see `docker logs {container(name)}`"
    if _state(name) != "running":
        raise TestbedError(f"the host {name} does not start; {log}")
    host = describe(name)
    # Every new host has keys of its own, often on a port that an earlier host had.
    run(["ssh-keygen", "-R", f"[127.0.0.1]:{host.ssh_port}", "-f", str(KNOWN_HOSTS)], check=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if subprocess.run([*ssh(host), "true"], check=False, capture_output=True, timeout=30).returncode == 0:
            return host
        if _state(name) != "running":
            raise TestbedError(f"the host {name} ended while it booted; {log}")
        time.sleep(0.5)
    raise TestbedError(f"no SSH on 127.0.0.1:{host.ssh_port} after 60 s; {log}")


def remove_state() -> None:
    """Remove the key pair and what else the test bed wrote."""
    for file in (KEY, KEY.with_suffix(".pub"), KNOWN_HOSTS, Path(f"{KNOWN_HOSTS}.old")):
        file.unlink(missing_ok=True)
