"""Runs on the host as root: looks for values wherever a secret could have slipped to.

Input: one JSON document with `values`. Output: JSON, for each kind of place the names of the places that have one.
The values come by standard input and go to grep by a file in memory, so that the search does not find itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SKIPPED = ["proc", "sys", "dev", "merged"]
ALLOWED = "/opt/tradingbot/secrets/"


def grep(values: list[str], *folders: str) -> list[str]:
    """Return the files below *folders* that contain one of *values*. A container's layers are read once."""
    patterns = os.memfd_create("patterns")
    os.write(patterns, "\n".join(values).encode())
    command = ["grep", "-rlaFs", "--devices=skip", *[f"--exclude-dir={name}" for name in SKIPPED]]
    command += ["-f", f"/proc/self/fd/{patterns}", *folders]
    environment = os.environ | {"LC_ALL": "C"}
    found = subprocess.run(
        command, check=False, capture_output=True, text=True, pass_fds=[patterns], env=environment
    ).stdout
    os.close(patterns)
    return found.splitlines()


def output(command: str) -> str:
    """Return all that *command* prints."""
    return subprocess.run(
        command, shell=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout.decode(errors="replace")


def processes(kind: str) -> dict[str, str]:
    """Return the command line or the environment of every process but the one that a health check lives for."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text().strip()
            if kind == "cmdline" or name != "redis-cli":
                found[f"{name}[{folder.name}]"] = (folder / kind).read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def main() -> None:
    """Look everywhere."""
    values = json.load(sys.stdin)["values"]
    containers = output("docker ps --all --quiet").split()
    images = sorted(set(output("docker images --all --quiet").split()))
    volumes = output("docker volume ls --quiet").split()
    places = {
        "file": {},
        "command line": processes("cmdline") | {"ps": output("ps auxww")},
        "environment": processes("environ"),
        "docker inspect": {
            "containers and images": output("docker inspect " + " ".join(containers + images)),
            "volumes": output("docker volume inspect " + " ".join(volumes)),
        },
        "docker history": {name: output(f"docker history --no-trunc {name}") for name in images},
        "docker logs": {name: output(f"docker logs {name}") for name in containers},
        "docker compose config": {"project": output("docker compose --project-directory /opt/tradingbot config")},
        "journal": {"journal": output("journalctl --namespace=* --output=export --no-pager")},
        "variables of systemd": {"systemd": output("systemctl show-environment")},
    }
    found = {
        kind: sorted(name for name, text in texts.items() if any(value in text for value in values))
        for kind, texts in places.items()
    }
    found["file"] = [name for name in grep(values, "/") if not name.startswith(ALLOWED)]
    print(json.dumps(found))


main()
