"""Containers of the images that the local registry holds, for the tests of their contract."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.testbed import engine, images, registry
from tests.testbed.shell import output, run

Done = subprocess.CompletedProcess[str]


class Container:
    """A container of one test."""

    def __init__(self, name: str) -> None:
        """Take the container *name*, which is there already."""
        self.name = name

    def run(self, *command: str, user: str = "root") -> Done:
        """Run *command* inside and return its end, whatever it is."""
        return run(["docker", "exec", "--user", user, self.name, *command], check=False, timeout=60)

    def output(self, *command: str) -> str:
        """Return what *command* printed inside. Raises TestbedError when it fails."""
        return output(["docker", "exec", self.name, *command], timeout=60)

    def logs(self) -> str:
        """Return all that the container has printed."""
        return output(["docker", "logs", self.name])

    def address(self) -> str:
        """Return its address on Docker's default bridge."""
        return output(
            ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name]
        )

    def restart(self) -> None:
        """Stop it in order and start it again, with the same volumes."""
        run(["docker", "restart", "--time", "20", self.name])

    def stop(self) -> tuple[float, int]:
        """Send it its stop signal; return the seconds that it took and its exit code. Killed after 20 s (code 137)."""
        start = time.monotonic()
        run(["docker", "stop", "--time", "20", self.name])
        return time.monotonic() - start, self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end and return the exit code."""
        return int(output(["docker", "wait", self.name], timeout=60))

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait at most 60 s and while it runs. Fails the test with the container's log."""
        deadline = time.monotonic() + 60
        state = ["docker", "inspect", "--format", "{{.State.Running}}", self.name]
        while not holds():
            assert output(state) == "true", f"{self.name} has ended; its log:\n{self.logs()}"
            assert time.monotonic() < deadline, f"not within 60 s; the log of {self.name}:\n{self.logs()}"
            time.sleep(0.1)


class Start(Protocol):
    """Starts a container: image, its arguments, and options of `docker run`."""

    def __call__(self, official: str, *arguments: str, options: list[str] | None = None) -> Container:
        """Return the container. It is removed, volumes included, when the test is over."""


@pytest.fixture(scope="session", autouse=True)
def pulled() -> None:
    """Fill the registry when it is empty. What it holds is what is tested, not what lies in the engine's store."""
    engine.ensure()
    registry.ensure()
    for stand_in in images.STAND_INS:
        run(["docker", "pull", "--quiet", registry.local_name(stand_in.official)])


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Start containers that go away with the module's last test."""
    started = []

    def run_container(official: str, *arguments: str, options: list[str] | None = None) -> Container:
        name = f"tradingbot-contract-{uuid.uuid4().hex[:8]}"
        image = registry.local_name(official)
        started.append(name)
        run(["docker", "run", "--detach", "--name", name, *(options or []), image, *arguments])
        return Container(name)

    yield run_container
    if started:
        run(["docker", "rm", "--force", "--volumes", *started], check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that every user of a container can read, once mounted."""
    made = tmp_path / "mounted"
    made.mkdir()
    made.chmod(0o755)
    return made


def config_of(official: str) -> dict[str, Any]:
    """Return the configuration of an image: its variables, volumes, command."""
    found: dict[str, Any] = json.loads(output(["docker", "image", "inspect", registry.local_name(official)]))[0][
        "Config"
    ]
    return found
