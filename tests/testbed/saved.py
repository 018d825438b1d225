"""Saved hosts: a host with its disks and its inventory's secrets, from which others start as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from . import base, registry
from .shell import STATE, output, run, say, step

FOLDER = STATE / "saved"
DISKS = ("docker", "containerd")


def image(name: str) -> str:
    """Return the image that holds the file system of the saved host *name*."""
    return f"tradingbot-testbed/saved:{name}"


def disk(container: str, which: str) -> str:
    """Return the volume with one of the disks of *container*; `which` is one of DISKS."""
    return f"{container}-{which}"


def save(container: str, name: str, secrets: Path) -> None:
    """Save the stopped *container*, its disks and the folder *secrets* as *name*, in place of what was saved before.

    Raises TestbedError.
    """
    with step(f"saving the host {name}"):
        remove(name)
        run(["docker", "commit", "--change", f"LABEL {base.LABEL}=saved", container, image(name)])
        for which in DISKS:
            _copy(disk(container, which), disk(_volumes(name), which))
        place = FOLDER / name
        shutil.copytree(secrets, place / "secrets")
        # Another checkout on this machine saves under the same names, with other secrets.
        (place / "image.json").write_text(json.dumps(_image_id(name)))


def is_there(name: str) -> bool:
    """Return whether *name* has been saved, by this checkout."""
    mark = FOLDER / name / "image.json"
    return mark.exists() and bool(_image_id(name)) and json.loads(mark.read_text()) == _image_id(name)


def restore(name: str, container: str, secrets: Path) -> None:
    """Copy the disks of the saved host *name* for *container*, and its secrets to *secrets*. Raises TestbedError."""
    for which in DISKS:
        _copy(disk(_volumes(name), which), disk(container, which))
    shutil.rmtree(secrets, ignore_errors=True)
    secrets.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(FOLDER / name / "secrets", secrets)


def remove(name: str) -> None:
    """Remove the saved host *name*. Nothing happens when there is none."""
    for which in DISKS:
        run(["docker", "volume", "rm", "--force", disk(_volumes(name), which)])
    if _image_id(name):
        run(["docker", "image", "rm", "--force", image(name)])
    shutil.rmtree(FOLDER / name, ignore_errors=True)


def remove_all() -> None:
    """Remove all saved hosts."""
    tags = output(["docker", "image", "ls", "--format", "{{.Tag}}", image("x").partition(":")[0]]).split()
    for name in tags:
        say(f"removing the saved host {name}")
        remove(name)


def _volumes(name: str) -> str:
    return f"tradingbot-saved-{name}"


def _image_id(name: str) -> str:
    return output(["docker", "image", "ls", "--quiet", "--no-trunc", image(name)])


def _copy(source: str, target: str) -> None:
    """Copy a volume. Layers of images carry attributes and devices that only an administrator may read and make."""
    run(["docker", "volume", "create", target])
    run(
        [
            *["docker", "run", "--rm", "--network", "none", "--cap-add", "SYS_ADMIN"],
            *["--security-opt", "apparmor=unconfined", "--volume", f"{source}:/from:ro", "--volume", f"{target}:/to"],
            *["--entrypoint", "cp", registry.local_name("debian:trixie-slim"), "--archive", "/from/.", "/to"],
        ]
    )
