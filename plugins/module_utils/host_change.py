# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""A change of a host in one call: alone, to its end although its caller dies, with failures that explain themselves."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.tradingbot.stack.plugins.module_utils import failures

RUN_DIR = Path("/run/tradingbot")
LONGEST_CHANGE = 600
NO_ENGINE = "the Docker engine does not answer: `systemctl status docker` on the host"


class ChangeError(Exception):
    """What cannot be done, and why, in a sentence for people."""


class Steps(list[dict[str, Any]]):
    """What was done so far, with how long each step took and whether it went well."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note what is done in the block."""
        started = self._clock()
        step: dict[str, Any] = {"step": name, "seconds": 0.0, "ok": False}
        self.append(step)
        try:
            yield
            step["ok"] = True
        finally:
            step["seconds"] = round(self._clock() - started, 2)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait for a change that goes on here although its controller has died. Raises ChangeError if it does not end."""
    RUN_DIR.mkdir(mode=0o700, exist_ok=True)
    with (RUN_DIR / "slots.lock").open("w") as file:
        until = time.monotonic() + LONGEST_CHANGE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ChangeError(
                        f"another change of the backend or nginx goes on, on this host, for more than {LONGEST_CHANGE}"
                        " s: wait until it has ended, or end the process that `sudo fuser /run/tradingbot/slots.lock`"
                        " names"
                    ) from None
                time.sleep(0.5)
        yield


def explained(error: Exception) -> str:
    """Return what went wrong for people, with the fix where the cause is known."""
    if isinstance(error, OSError):
        return failures.os_error_text(error)
    return failures.described(str(error) if isinstance(error, ChangeError) else repr(error))


def on_its_own(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do *work* in a process and session of its own, and return its result.

    When a connection breaks, sudo kills what it has started (sudo's exec_pty.c: SIGHUP, SIGTERM, SIGKILL). That must
    not stop a change half way.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        failed = {"failed": True, "msg": "the process that made the change was killed: run the same again"}
        return dict(json.loads(told)) if told else failed
    os.close(read_end)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - nobody but the parent can say what it was
        result = {"failed": True, "msg": explained(error)}
    with contextlib.suppress(BrokenPipeError), os.fdopen(write_end, "w") as pipe:
        json.dump(result, pipe)
    os._exit(0)
