"""Gets a Docker engine going on this machine when none answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from .shell import STATE, TestbedError, run, say, step

LOG = STATE / "dockerd.log"
# How all containers together are weighed against the other processes, of which each session counts as 1024 (cgroup v1).
CPU_SHARES = Path("/sys/fs/cgroup/cpu/docker/cpu.shares")


def answers() -> bool:
    """Tell whether a Docker engine answers."""
    return bool(shutil.which("docker")) and run(["docker", "info"], check=False, timeout=30).returncode == 0


def is_debian_like() -> bool:
    """Tell whether apt-get can install an engine here."""
    return shutil.which("apt-get") is not None


def has_service_manager() -> bool:
    """Tell whether systemd runs here."""
    return Path("/run/systemd/system").is_dir()


def apt_install(*packages: str) -> None:
    """Install Debian packages that are missing. Raises TestbedError without root or apt-get."""
    missing = [p for p in packages if not _installed(p)]
    if not missing:
        return
    if os.geteuid() != 0 or not is_debian_like():
        raise TestbedError(f"please install {', '.join(missing)}: this needs root on a Debian-like system")
    with step(f"installing {', '.join(missing)} from Debian"):
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        run([*environment, "apt-get", "update"])
        run([*environment, "apt-get", "install", "--yes", "--no-install-recommends", *missing])


def _installed(package: str) -> bool:
    state = run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package], check=False)
    return state.stdout.strip() == "installed"


def ensure() -> None:
    """Make a Docker engine answer.

    Raises TestbedError, saying what to install, where this cannot be done.
    """
    if answers():
        return
    if os.geteuid() != 0 or not is_debian_like():
        raise TestbedError(
            "no Docker engine answers. Install Docker Engine 20.10 or newer and start it "
            "(https://docs.docker.com/engine/install/), or add yourself to the group `docker`; then run this again"
        )
    apt_install("docker.io", "iptables")
    if has_service_manager():
        with step("starting docker.service"):
            run(["systemctl", "enable", "--now", "docker.service"])
    else:
        _start_daemon()
    for _ in range(60):
        if answers():
            return
        time.sleep(1)
    raise TestbedError(f"the Docker engine does not answer after 60 s; its log is {LOG}")


def weigh_containers() -> None:
    """Give hosts four times the processors of a controller or a load, which are other machines for a real host.

    Where no service manager runs, a whole host counts as much as one of them. Needs a running container; elsewhere, and
    on cgroup v2, nothing is changed.
    """
    if not has_service_manager() and os.access(CPU_SHARES, os.W_OK):
        CPU_SHARES.write_text("4096")


def _start_daemon() -> None:
    """Start dockerd in a session of its own: no service manager runs here."""
    say("no service manager runs here: starting dockerd in the background")
    # A stale pid file from a machine that was switched off keeps dockerd from starting, also when another program has
    # that number by now.
    pidfile = Path("/var/run/docker.pid")
    if pidfile.exists():
        program = Path(f"/proc/{pidfile.read_text().strip()}/comm")
        if not program.exists() or program.read_text().strip() != "dockerd":
            pidfile.unlink()
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("ab") as log:
        subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
