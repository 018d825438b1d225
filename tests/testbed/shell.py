"""Running commands and telling people what goes on."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".testbed"


class TestbedError(Exception):
    """What failed, and what a person can do about it."""


def say(text: str) -> None:
    """Print one line of progress at once, also when the output is a pipe."""
    print(f"-- {text}", flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step that takes long, and how long it took."""
    say(f"{text} ...")
    start = time.monotonic()
    yield
    say(f"{text}: done in {time.monotonic() - start:.0f} s")


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the lock of the test bed: another process waits until this one is through."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str], *, timeout: float = 900, check: bool = True, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run *command* quietly. Raises TestbedError with the end of its output when it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            input=text,
        )
    except FileNotFoundError as error:
        raise TestbedError(f"the command {command[0]!r} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"no end after {timeout:.0f} s: {' '.join(command)}") from error
    if check and done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-25:])
        raise TestbedError(f"exit {done.returncode} from: {' '.join(command)}\n{tail}")
    return done


def output(command: Sequence[str], *, timeout: float = 120) -> str:
    """Return what *command* printed, without the last line break."""
    return run(command, timeout=timeout).stdout.strip()


def fail(error: Exception) -> None:
    """End the program with the message of *error*."""
    print(f"\nFAILED: {error}", file=sys.stderr, flush=True)
    raise SystemExit(1)
