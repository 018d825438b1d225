"""A run of load beside something else: started, stopped, and its result read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .result import Result

ROOT = Path(__file__).resolve().parents[2]
STOPS_WITHIN = 60


class Running:
    """A run in a process of its own, so that nothing else slows its clock."""

    def __init__(self, plan: Path, result: Path, *options: str) -> None:
        self._result = result
        result.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.load", str(plan), "--result", str(result), *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout
        first = self._process.stdout.readline()
        if first.strip() != "running":
            self.kill()
            raise RuntimeError(f"the load does not start: {first}{self._process.stdout.read()}")

    def stop(self) -> Result:
        """End the run and return its result. Raises RuntimeError when there is none."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"the load does not stop within {STOPS_WITHIN} s") from None
        if not self._result.exists():
            assert self._process.stdout
            raise RuntimeError(f"the load left no result: {self._process.stdout.read()}")
        return Result.read(self._result)

    def kill(self) -> None:
        """End it without a result, as after a failure of something else."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def load(plan: Path, result: Path, *options: str) -> Iterator[Running]:
    """Load while the block runs, which calls `stop` for the result."""
    running = Running(plan, result, *options)
    try:
        yield running
    finally:
        running.kill()
