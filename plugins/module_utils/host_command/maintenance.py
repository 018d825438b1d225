# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `maintenance`: nginx answers 503 with a page to all but webhooks, which are still taken in and kept."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import failures, stack_health, stack_services
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
    refuse_without_nginx(stack)
    if given.state == "status":
        return status(stack, path)
    return switch(stack, path, given.state == "on")


def status(stack: Stack, path: Path) -> int:
    """Print what nginx does."""
    found = [stack_health.proxy_state(one, TIMEOUT) for one in running(stack)]
    silent = [told for told in found if told is None or told["error"]]
    if silent:
        print(f"nginx does not say: {silent[0] and silent[0]['error']}", file=sys.stderr)
        return FAILED
    written, states = "default 1;" in _read(path), [told["maintenance"] for told in found if told]
    print(f"maintenance is {'on' if all(states) else 'off'}")
    if any(state != written for state in states):
        print(f"but {path} says the contrary: `tradingbot maintenance {'on' if written else 'off'}`", file=sys.stderr)
        return FAILED
    return OK


def running(stack: Stack) -> list[dict[str, Any]]:
    """Return the containers of nginx that run: two while one is replaced."""
    return stack_services.running_nginx(stack.containers(one_offs=True))


def refuse_without_nginx(stack: Stack) -> None:
    """Raise RefusedError unless nginx runs."""
    if not running(stack):
        raise RefusedError("nginx", "it does not run", "`tradingbot up nginx`, or `tradingbot logs nginx` to see why")


def switch(stack: Stack, path: Path, on: bool) -> int:
    """Write the state and have nginx take it; put the old state back when it does not."""
    before = _read(path)
    write(path, TEXT.format(state=int(on)))
    refused = apply(stack)
    if not refused:
        kept = "Webhooks are taken in, all else gets 503." if on else "All is served."
        print(f"maintenance is {'on' if on else 'off'}. {kept}")
        return OK
    if before:
        write(path, before)
    else:
        path.unlink(missing_ok=True)
    # nginx may have taken the new state after all, just too late.
    again = not apply(stack)
    why = f"nginx did not take it: {refused}"
    back = "what was before is in place again" if again else f"{path} is as before, and nginx may not be"
    raise RefusedError("maintenance", f"{why}; {back}", "`tradingbot logs --tail 20 nginx` says more")


def apply(stack: Stack) -> str:
    """Have each nginx take what is on disk; return why one does not, '' when all do."""
    for one in running(stack):
        code, out, err = stack_health.run(["docker", "exec", str(one["Id"]), *APPLY], TIMEOUT)
        # One that has ended meanwhile reads it when it starts again.
        if code and stack_services.runs_on(one, running(stack)):
            return stack_health.last_line(err or out) or f"exit code {code}"
    return ""


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
