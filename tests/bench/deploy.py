"""How long a deployment takes: from a bare host, and when there is nothing to change."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.testbed.hosts import Host
from tests.testbed.shell import ROOT, TestbedError, step

from . import host as bench
from . import parsers
from .report import Aim, Report, Row

RUNS = 3


def play(playbook: str, *arguments: str) -> tuple[float, parsers.Play]:
    """Run *playbook* on the host; return its seconds and its recap. Raises TestbedError when it fails."""
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks,ansible.posix.profile_roles",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
    }
    log = bench.FOLDER / f"{Path(playbook).stem}.log"
    started = time.monotonic()
    with log.open("w") as output:
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [str(program), playbook, "-i", str(bench.INVENTORY), *arguments]
        subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=output, stderr=output, timeout=1800)
    seconds = time.monotonic() - started
    try:
        return seconds, parsers.ansible(log.read_text())
    except ValueError as error:
        tail = "\n".join(log.read_text().splitlines()[-30:])
        raise TestbedError(f"{playbook}: {error}; {log} has it all, and ends in:\n{tail}") from error


def deploy() -> None:
    """Bring the host to the state that the other figures are taken in."""
    with step("deploying the stack"):
        play("site.yml")


def measure(host: Host, report: Report) -> None:
    """Take all figures of a deployment; *host* is bare before and runs the stack after."""
    with step("site.yml on a bare host (2 to 5 minutes)"):
        bare, bare_recap = play("site.yml")
    with step(f"site.yml with nothing to change, {RUNS} times"):
        again, again_recap = median_of(lambda: play("site.yml"))
    if again_recap.changed:
        raise TestbedError(f"{again_recap.changed} tasks changed something on a host that was deployed a minute ago")
    with step(f"an empty run of Ansible, {RUNS} times"):
        empty, _ = median_of(lambda: play("tests/bench/empty.yml"))
    with step(f"plain Docker Compose with the same files, {RUNS} times"):
        compose = statistics.median(compose_up(host) for _ in range(RUNS))
        compose_again = seconds_of(lambda: bench.compose(host, "up", "--detach", "--wait"))

    chapter = "Deployment"
    report.add(chapter, Row("bare host → healthy", bare, "s", compose, "`docker compose up --wait`"))
    report.add(chapter, Row("tasks on a bare host", bare_recap.tasks, ""))
    for role, seconds in list(bare_recap.roles.items())[:5]:
        report.add(chapter, Row(f"of it: {role}", seconds, "s", bare, "bare host → healthy"))
    report.add(chapter, Row("run with nothing to change", again, "s", empty, "an empty run", (Aim(30),)))
    report.add(chapter, Row("tasks with nothing to change", again_recap.tasks, ""))
    for role, seconds in list(again_recap.roles.items())[:5]:
        report.add(chapter, Row(f"of it: {role}", seconds, "s", again, "run with nothing to change"))
    report.add(
        chapter, Row("`docker compose up --wait`, nothing to change", compose_again, "s", compose, "from nothing")
    )


def median_of(run: Callable[[], tuple[float, parsers.Play]]) -> tuple[float, parsers.Play]:
    """Return the middle one of several runs, by seconds."""
    return sorted((run() for _ in range(RUNS)), key=lambda result: result[0])[RUNS // 2]


def compose_up(host: Host) -> float:
    """Return the seconds that Compose takes to start the stack from no containers; the data stays."""
    bench.compose(host, "down")
    return seconds_of(lambda: bench.compose(host, "up", "--detach", "--wait"))


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that *work* takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started
