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


class ChangeError(Exception):
    """What cannot be done, and why, in a sentence for people."""


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
