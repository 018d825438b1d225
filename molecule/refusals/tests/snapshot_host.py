"""Prints all of a host that a deployment could change, as one JSON object. Runs on the host, as root.

A file counts with its owner, mode, size and inode, and with the times of its last write and of its last change of
any kind. The kernel sets the latter (st_ctime, inode(7)) and nobody can set it back, so even a file that was written
with what it held before shows up; reading leaves no trace.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

LEFT_OUT = {
    "/dev": "devices",
    "/proc": "the kernel's; settings are looked at below",
    "/sys": "the kernel's",
    "/run": "gone with the next boot; units, mounts and listeners are looked at below",
    "/tmp": "gone with the next boot",
    "/usr/lib/modules": "the modules of the machine that carries the host",
    "/var/log/journal": "tells of every session",
    "/var/lib/containerd/io.containerd.metadata.v1.bolt": "written again when containerd tidies up, some time after a "
    "container has started or ended; containers and images are looked at below",
    "/var/lib/systemd/timers": "when the system's own timers last ran",
}
# Counters that move by themselves.
UNSTEADY = re.compile(r"/nf_conntrack_count$")
# The session that looks at the host.
SESSION = re.compile(r"user@|user-runtime-dir@|run-user-|session-|/run/user/")
COMMANDS = {
    "packages": "dpkg-query --show --showformat='${Package} ${Version} ${db:Status-Abbrev}\n'",
    "ruleset": "nft --stateless --terse list ruleset",
    "unit files": "systemctl list-unit-files --no-legend --no-pager",
    # systemd hears of a mount some time after it is there, so mounts are asked of the kernel below.
    "units": "systemctl list-units --type=service,socket,timer --state=active --plain --no-legend --no-pager",
    "listeners": "ss --listening --tcp --numeric --no-header",
    # Whether a cable is in, and with it IPv6's own addresses of a link, follows with some delay.
    "addresses": "ip -4 -oneline address",
    "routes": "ip -4 route show table all | sed 's/ linkdown//'",
    "containers": "docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.Image}} {{.State}}'",
    "images": "docker images --all --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}'",
    "volumes": "docker volume ls --format '{{.Name}}'",
    "networks": "docker network ls --no-trunc --format '{{.ID}} {{.Name}}'",
}


def files() -> dict[str, str]:
    found = {}
    for base, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(base, name) not in LEFT_OUT]
        for path in (os.path.join(base, name) for name in folders + names):
            at = os.lstat(path)
            found[path] = (
                f"{at.st_mode:o} {at.st_uid}:{at.st_gid} {at.st_size} {at.st_ino} {at.st_mtime_ns} {at.st_ctime_ns}"
            )
    return found


def kernel_settings() -> dict[str, str]:
    found = {}
    for area in ("net", "vm"):
        for base, _, names in os.walk(f"/proc/sys/{area}"):
            for path in (os.path.join(base, name) for name in names):
                if os.stat(path).st_mode & 0o400 and not UNSTEADY.search(path):
                    try:
                        with open(path) as file:
                            found[path] = file.read()
                    except OSError as error:  # settings that this kernel lists but does not have
                        found[path] = str(error)
    return found


def answers() -> dict[str, str]:
    found = {}
    for name, command in COMMANDS.items():
        if shutil.which(command.split()[0]):
            told = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
            found.update({f"{name}: {line.strip()}": "" for line in told.splitlines() if not SESSION.search(line)})
    with open("/proc/1/mounts") as file:
        found.update({f"mount: {line.strip()}": "" for line in file if not SESSION.search(line)})
    return found


print(json.dumps({**files(), **kernel_settings(), **answers()}))
