# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `maintenance`: nginx answers 503 with a page to all but webhooks, which are still taken in and kept."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .. import failures, stack_health
from .stack import FAILED, OK, RefusedError, Stack

APPLY = ["sh", "/etc/tradingbot/nginx/apply.sh"]
TIMEOUT = 60.0
TEXT = 'map "" $maintenance {{ default {state}; }}\n'


def maintenance(stack: Stack, given: argparse.Namespace) -> int:
    """Switch it on or off, or say which it is."""
    path = stack.project_dir / "nginx" / "live" / "maintenance.conf"
    if "nginx" not in stack.services or not path.parent.is_dir():
        raise RefusedError(
            "maintenance", "no web server is laid out on this host", "run it where nginx is, or run site.yml"
        )
    if given.state == "status":
        return status(stack, path)
    return switch(stack, path, given.state == "on")


def status(stack: Stack, path: Path) -> int:
    """Print what nginx does."""
    identity = stack.running("nginx")
    told = stack_health.proxy_state({"Id": identity, "State": {"Running": True}}, TIMEOUT)
    if told is None or told["error"]:
        print(f"nginx does not say: {told and told['error']}", file=sys.stderr)
        return FAILED
    written = "default 1;" in _read(path)
    print(f"maintenance is {'on' if told['maintenance'] else 'off'}")
    if written != told["maintenance"]:
        print(f"but {path} says the contrary: `tradingbot maintenance {'on' if written else 'off'}`", file=sys.stderr)
        return FAILED
    return OK


def switch(stack: Stack, path: Path, on: bool) -> int:
    """Write the state and have nginx take it; put the old state back when it does not."""
    identity = stack.running("nginx")
    before = _read(path)
    write(path, TEXT.format(state=int(on)))
    code, out, err = stack_health.run(["docker", "exec", identity, *APPLY], TIMEOUT)
    if code == 0:
        kept = "Webhooks are taken in, all else gets 503." if on else "All is served."
        print(f"maintenance is {'on' if on else 'off'}. {kept}")
        return OK
    if before:
        write(path, before)
    else:
        path.unlink(missing_ok=True)
    # nginx may have taken the new state after all, just too late.
    again = stack_health.run(["docker", "exec", identity, *APPLY], TIMEOUT)[0] == 0
    why = f"nginx did not take it: {stack_health.last_line(err or out)}"
    back = "what was before is in place again" if again else f"{path} is as before, and nginx may not be"
    raise RefusedError("maintenance", f"{why}; {back}", "`tradingbot logs --tail 20 nginx` says more")


def write(path: Path, text: str) -> None:
    """Replace a file in one step: nginx reads the old one or the new one."""
    with failures.naming(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
