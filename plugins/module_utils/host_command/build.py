# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `build`: an image of the backend from sources that are at hand on this host."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from .. import target
from ..stack_health import run
from .stack import FAILED, OK, USAGE, RefusedError, Stack, call

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def build(stack: Stack, given: argparse.Namespace) -> int:
    """Build it and print its size. No slot runs it by that: a deploy does."""
    if given.path is None:
        why = "the sources are on the controller, not on this host"
        fix = (
            "there: `ansible-playbook playbooks/build.yml -i <inventory>`; or give the folder: `tradingbot build PATH`"
        )
        raise RefusedError("build", why, fix, USAGE)
    context = Path(given.path)
    if not (context / "Dockerfile").is_file():
        raise RefusedError(given.path, "there is no Dockerfile in it", "name the folder backend/ of the sources", USAGE)
    if not TAG.fullmatch(given.version):
        why = "it cannot be a tag: letters, digits, dots, dashes and underscores, up to 128"
        raise RefusedError(f"version {given.version}", why, "like --version 0.3.0", USAGE)
    name = f"tradingbot-backend:{given.version}"
    started = time.monotonic()
    if call(command(context, name, given.version)) != 0:
        return FAILED
    told = target.docker_get(f"/images/{name}/json")
    size = f"{told['Size'] / 1e6:.1f} MB" if isinstance(told, dict) else "size unknown"
    print(f"{name}: {size}, {time.monotonic() - started:.0f} s")
    return OK


def command(context: Path, name: str, version: str) -> list[str]:
    """Return Docker's command."""
    arguments = {
        "BUILD_DATE": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "VCS_REF": commit(context),
        "VERSION": version,
    }
    options = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    return ["docker", "build", *options, "--tag", name, str(context)]


def commit(context: Path) -> str:
    """Return the commit of the sources when they are a checkout."""
    code, out, _ = run(["git", "-C", str(context), "rev-parse", "HEAD"], 10)
    return out.strip() if code == 0 else "unknown"
