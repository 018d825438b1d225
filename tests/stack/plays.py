"""Plays as a person starts them: to the end, or killed on the way."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Molecule asks for colour, which would break up the words that tests look for.
PLAIN = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
DEPLOY = "playbooks/deploy.yml"
ROLLBACK = "playbooks/rollback.yml"
SITE = "site.yml"
HEALTH = "playbooks/health.yml"
TEARDOWN = "playbooks/teardown.yml"
LONGEST = 600


@dataclass(frozen=True)
class Done:
    """A run of ansible-playbook that has ended. `code` is negative when a signal ended it."""

    code: int
    said: str
    seconds: float

    @property
    def changed(self) -> int:
        """How many tasks have changed something."""
        return sum(int(count) for count in re.findall(r"\bchanged=(\d+)", self.said))


class Run:
    """A run of ansible-playbook, with a process group of its own so that all of it can be killed at once."""

    def __init__(self, inventory: str, playbook: str, *arguments: str) -> None:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [program, playbook, "--inventory", inventory, *arguments],
            cwd=ROOT,
            # Without skipped hosts a task is named when its result is there, and not when it begins.
            env=os.environ | PLAIN | {"PYTHONUNBUFFERED": "1", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # A test that fails, or is interrupted, leaves no play behind.
        atexit.register(self._kill)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.append(line)

    @property
    def said(self) -> str:
        """All that it has printed so far."""
        return "".join(self._lines)

    def wait_for(self, text: str) -> None:
        """Wait until it prints *text*; fails the test when it ends without."""
        self.wait_until(lambda: text in self.said, f"`{text}` is printed")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until *holds*; fails the test when the run ends before."""
        until = self._started + LONGEST
        while not holds():
            ended = self._process.poll() is not None
            if ended:
                self._reader.join(5)
            assert not ended or holds(), f"the run ended before {what}:\n{self.said}"
            assert time.monotonic() < until, f"{what}: not within {LONGEST} s:\n{self.said}"
            time.sleep(0.02)

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> Done:
        """Kill the run and all its processes on this machine, as the death of the machine would."""
        self._kill()
        return self.end()

    def end(self) -> Done:
        """Wait for its end."""
        try:
            code = self._process.wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"no end after {LONGEST} s:\n{self.said}") from None
        # A connection that Ansible keeps open for later runs may keep the pipe open, too.
        self._reader.join(2)
        return Done(code, self.said, time.monotonic() - self._started)


def play(inventory: str, playbook: str, *arguments: str) -> Done:
    """Run a playbook to its end."""
    return Run(inventory, playbook, *arguments).end()


def succeeds(inventory: str, playbook: str, *arguments: str) -> Done:
    """Run a playbook to its end, which must be a good one."""
    done = play(inventory, playbook, *arguments)
    assert done.code == 0, done.said
    return done


def fails(inventory: str, playbook: str, *arguments: str) -> Done:
    """Run a playbook to its end, which must be that a task fails."""
    done = play(inventory, playbook, *arguments)
    assert done.code == 2, done.said
    return done


def apply_role(host: Any, role: str, **variables: Any) -> str:
    """Apply one role to the host with *variables* on top of the inventory's; return the output."""
    plays = [{"hosts": host.backend.host, "become": True, "roles": [f"tradingbot.stack.{role}"]}]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(json.dumps(plays))
        file.flush()
        return play(host.backend.ansible_inventory, file.name, "--extra-vars", json.dumps(variables)).said
