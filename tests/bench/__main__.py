"""Command line of the benchmarks: `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

from tests.testbed import __main__ as testbed
from tests.testbed import hosts
from tests.testbed.hosts import Host
from tests.testbed.shell import TestbedError, fail, output, say

from . import backend, deploy, load, memory, rollout, trading
from . import host as bench
from .report import Report

RESULT = bench.FOLDER / "result.json"
TABLES = bench.FOLDER / "result.md"
# The workers of the services need a moment after their start.
SETTLE_SECONDS = 10


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the stack on a host of its own. Takes about 12 minutes on 2 cores. A number that falls "
        "short is no failure; something that does not work is. "
        f"Results: {RESULT.name} and {TABLES.name} in .testbed/bench.",
    )
    top.add_argument(
        "--only",
        choices=("backend", "deploy", "rollout", "trading", "load", "memory"),
        help="measure one part; backend needs no host; rollout, trading, load and memory keep it",
    )
    top.add_argument("--keep", action="store_true", help="leave the host there at the end")
    return top


def main() -> None:
    """Measure, print, write the results, and remove the host."""
    arguments = parser().parse_args()
    bare = arguments.only in (None, "deploy")
    try:
        testbed.up()
        if bare:
            bench.refuse_kept()
        try:
            measure(arguments.only)
        finally:
            if bare and not arguments.keep:
                bench.remove()
    except TestbedError as error:
        fail(error)


def measure(only: str | None) -> None:
    """Take the figures of one part, or of all."""
    report = Report(machine())
    if only in (None, "backend"):
        backend.measure(report)
    if only == "backend":
        write(report)
        return
    host = prepare(only, report)
    if only != "deploy":
        say(f"letting the services settle for {SETTLE_SECONDS} s")
        time.sleep(SETTLE_SECONDS)
    if only in (None, "memory"):
        memory.measure_image(host, report)
        memory.measure(host, report, "idle")
    # Before the load, which leaves alerts in the queue.
    if only in (None, "trading"):
        trading.measure(host, report)
    if only in (None, "rollout"):
        rollout.measure(host, report)
    if only in (None, "load"):
        load.measure(host, report)
    if only == "memory":
        load.brief(host)
    if only in (None, "memory"):
        memory.measure(host, report, "after load")
    write(report)


def prepare(only: str | None, report: Report) -> Host:
    """Return a host that runs the stack; measure how it gets there unless *only* another part is wanted."""
    if only in (None, "deploy"):
        host = bench.create()
        deploy.measure(host, report)
        return host
    if bench.NAME in hosts.names():
        host = hosts.describe(bench.NAME)
        bench.write_inventory(host)
    else:
        host = bench.create()
    deploy.deploy()
    return host


def machine() -> dict[str, str]:
    """Say what the figures were taken on, and how busy it was."""
    commit = output(["git", "describe", "--always", "--dirty"])
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "processors": str(os.cpu_count()),
        "memory": f"{memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "Docker": output(["docker", "version", "--format", "{{.Server.Version}}"]),
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
    }
    say(" · ".join(f"{name}: {value}" for name, value in found.items()))
    say("the load generator, the engine and the stack share these processors")
    if os.getloadavg()[0] > 0.5:
        say("this machine is busy with something else: expect figures that are worse than they would be")
    return found


def write(report: Report) -> None:
    """Write the results and print the tables."""
    RESULT.write_text(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")
    TABLES.write_text(report.markdown())
    print(f"\n{report.markdown()}")
    aims = [(row, aim) for rows in report.chapters.values() for row in rows for aim in row.aims]
    missed = [f"{row.what} ({aim})" for row, aim in aims if not row.met(aim)]
    say(f"{len(aims) - len(missed)} of {len(aims)} aims met" + (f"; not met: {', '.join(missed)}" if missed else ""))
    say(f"results: {RESULT} and {TABLES}")


if __name__ == "__main__":
    main()
