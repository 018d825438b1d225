# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a Linux host says about itself, read from its files without changing anything.

Every reader takes the root of the file system, so that a test can give it a made-up one.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path("/")
LISTEN = "0A"
DOCKER_SOCKET = "/run/docker.sock"
DOCKER_ROOT = "/var/lib/docker"
CONTAINERD_ROOT = "/var/lib/containerd"
CONTAINERD_STORE = "io.containerd.snapshotter.v1"


class Listener(NamedTuple):
    """A listening TCP socket and the process that holds it (pid 0: not to be seen)."""

    port: int
    pid: int
    command: str
    unit: str


def os_release(root: Path = ROOT) -> dict[str, str]:
    """Return os-release(5) as a dict; empty when the host has none."""
    path = root / "etc/os-release"
    if not path.exists():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def memory_mb(root: Path = ROOT) -> int:
    """Return the host's memory in MiB (proc(5), MemTotal)."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def memory_available_mb(root: Path = ROOT) -> int:
    """Return the memory that new programs could have, in MiB (proc(5), MemAvailable)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    return int(found.group(1)) // 1024 if found else 0


def sysctl(name: str, root: Path = ROOT) -> list[str]:
    """Return the words of a kernel setting's value; empty when the kernel does not have it."""
    return _text(root / "proc/sys" / name.replace(".", "/")).split()


def cgroup_controllers(root: Path = ROOT) -> set[str]:
    """Return the cgroup controllers that are on, of version 2 and of version 1."""
    found: set[str] = set()
    unified = root / "sys/fs/cgroup/cgroup.controllers"
    if unified.exists():
        found.update(unified.read_text().split())
    legacy = root / "proc/cgroups"
    if legacy.exists():
        rows = (line.split() for line in legacy.read_text().splitlines() if not line.startswith("#"))
        found.update(row[0] for row in rows if len(row) == 4 and row[3] == "1")
    return found


def compose_project(folder: Path) -> str:
    """Return the name of the Compose project in *folder*, from where Compose reads it; empty when there is none."""
    found = re.search(r"^COMPOSE_PROJECT_NAME=(\S+)$", _text(folder / ".env"), re.MULTILINE)
    return found.group(1) if found else ""


def existing_parent(path: str) -> str:
    """Return *path*, or the nearest folder above it that exists."""
    here = Path(path)
    while not here.exists() and here != here.parent:
        here = here.parent
    return str(here)


def free_mb(path: str) -> int:
    """Return the space in MiB that is free at *path*, or where *path* would be made."""
    stats = os.statvfs(existing_parent(path))
    return stats.f_bavail * stats.f_frsize // (1024 * 1024)


def _socket_owners(inodes: set[str], root: Path) -> dict[str, int]:
    owners: dict[str, int] = {}
    for process in (root / "proc").glob("[0-9]*"):
        try:
            targets = [os.readlink(entry) for entry in os.scandir(process / "fd")]
        except OSError:  # gone meanwhile, or not ours to look at
            continue
        for target in targets:
            if target.startswith("socket:[") and target[8:-1] in inodes:
                owners.setdefault(target[8:-1], int(process.name))
    return owners


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def listeners(ports: set[int], root: Path = ROOT) -> list[Listener]:
    """Return who listens on *ports* over IPv4 or IPv6, one entry for each port and process."""
    inodes: dict[str, int] = {}
    for name in ("proc/net/tcp", "proc/net/tcp6"):
        for row in _text(root / name).splitlines()[1:]:
            columns = row.split()
            port = int(columns[1].rsplit(":", 1)[1], 16)
            if columns[3] == LISTEN and port in ports:
                inodes[columns[9]] = port
    owners = _socket_owners(set(inodes), root) if inodes else {}
    found = set()
    for inode, port in inodes.items():
        pid = owners.get(inode, 0)
        unit = re.search(r"/([^/]+\.service)", _text(root / f"proc/{pid}/cgroup"))
        found.add(Listener(port, pid, _text(root / f"proc/{pid}/comm"), unit.group(1) if unit else ""))
    return sorted(found)


def routes(root: Path = ROOT) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """Yield the interface and the network of every IPv4 route but the default one."""
    for row in _text(root / "proc/net/route").splitlines()[1:]:
        columns = row.split()
        address, mask = (socket.inet_ntoa(struct.pack("=L", int(columns[n], 16))) for n in (1, 7))
        if mask != "0.0.0.0":
            yield columns[0], ipaddress.IPv4Network(f"{address}/{mask}", strict=False)


def plain_address(text: str) -> str:
    """Return an address without its zone, and an IPv4 one that came in an IPv6 dress without the dress."""
    address = ipaddress.ip_address(text.split("%", 1)[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def ssh_connection(pid: int | None = None, root: Path = ROOT) -> dict[str, Any]:
    """Return the peer's address and the host's port of the SSH connection that *pid* runs in.

    sudo drops SSH_CONNECTION (ssh(1)) from the environment, so that of every process above is asked
    too. Empty when there is none: the host is not reached by SSH.
    """
    here = os.getpid() if pid is None else pid
    while here > 1:
        entries = _text(root / f"proc/{here}/environ").split("\0")
        for entry in entries:
            words = entry.partition("=")[2].split()
            if entry.startswith("SSH_CONNECTION=") and len(words) == 4:
                return {"address": plain_address(words[0]), "port": int(words[3])}
        parent = re.search(r"^PPid:\s+(\d+)", _text(root / f"proc/{here}/status"), re.MULTILINE)
        here = int(parent.group(1)) if parent else 0
    return {}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def docker_get(resource: str, path: str = DOCKER_SOCKET, timeout: float = 5.0) -> Any:
    """Return what the Docker API answers to GET *resource*; None when no engine answers with success."""
    connection = _UnixConnection(path, timeout)
    try:
        connection.request("GET", resource)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def docker_roots(path: str = DOCKER_SOCKET) -> list[str]:
    """Return the folders in which the engine keeps volumes and images, or would, when none answers.

    With the containerd image store (the driver's type), images are in a folder of containerd's.
    """
    told = docker_get("/info", path) or {}
    roots = [str(told.get("DockerRootDir") or DOCKER_ROOT)]
    driver = dict(pair for pair in told.get("DriverStatus") or [] if len(pair) == 2)
    return roots + ([CONTAINERD_ROOT] if driver.get("driver-type") == CONTAINERD_STORE else [])


def family(pid: int, root: Path = ROOT) -> list[int]:
    """Return a process and all that it and they have started and that run."""
    started = _text(root / f"proc/{pid}/task/{pid}/children").split()
    return [pid, *(one for child in started for one in family(int(child), root))]


def catches(pid: int, number: int, root: Path = ROOT) -> bool:
    """Return whether a process has a handler for a signal (proc(5), SigCgt)."""
    found = re.search(r"^SigCgt:\s+([0-9a-f]+)", _text(root / f"proc/{pid}/status"), re.MULTILINE)
    return bool(found and int(found.group(1), 16) >> (number - 1) & 1)


def resolves(name: str) -> bool:
    """Tell whether the host's resolver knows *name*."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def version(text: str) -> tuple[int, ...]:
    """Return the upstream numbers of a Debian version: ``5:28.5.1-1~debian`` gives ``(28, 5, 1)``."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()
