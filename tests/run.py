"""`make test`: every check of the project, stage by stage, with the time that each one took.

All stages run, also after one has failed, so that one run shows all that is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / ".testbed" / "reports"
BACKEND = ROOT / "backend"
BACKEND_BIN = ROOT / ".cache" / "backend-venv" / "bin"


@dataclass(frozen=True)
class Stage:
    """A named list of commands; a stage with tests of its own leaves a JUnit report, any other counts as one test."""

    name: str
    commands: list[list[str]]
    folder: Path = ROOT

    @property
    def search_path(self) -> str:
        """Where its programs are looked up: beside this Python; the backend has an environment of its own."""
        first = BACKEND_BIN if self.folder == BACKEND else Path(sys.executable).parent
        return os.pathsep.join([str(first), os.environ["PATH"]])


def stages() -> list[Stage]:
    """Return all stages, the quick ones first."""
    dockerfiles = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/testbed/images/*/Dockerfile"))
    scripts = sorted(
        str(p.relative_to(ROOT)) for folder in ("roles", "tests", ".ci") for p in (ROOT / folder).rglob("*.sh")
    )
    return [
        Stage("lint ansible", [["ansible-lint", "--offline"], ["yamllint", "--strict", "."]]),
        Stage(
            "lint python",
            [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "plugins", "tests", "molecule"]],
        ),
        Stage("lint scripts", [["shellcheck", *scripts, ".ci/run"], ["hadolint", "backend/Dockerfile", *dockerfiles]]),
        Stage("lint docs", [["antsibull-changelog", "lint"], [sys.executable, "tests/tools/role_docs.py", "--check"]]),
        Stage(
            "lint backend",
            [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "src", "tests", "tools"]],
            folder=BACKEND,
        ),
        Stage("unit", [["pytest", "-q", "-n", "2", "tests/unit"]]),
        Stage("test bed", [[sys.executable, "-m", "tests.testbed", "up"]]),
        Stage("stand-ins", [["pytest", "-q", "tests/testbed"]]),
        Stage(
            "backend",
            # Tests of one file share what they make.
            [["pytest", "-q", "-n", "2", "--dist", "loadfile", "--cov", "--cov-report=term:skip-covered"]],
            folder=BACKEND,
        ),
        Stage("molecule refusals", [["molecule", "test", "-s", "refusals"]]),
        Stage("molecule default", [["molecule", "test", "-s", "default"]]),
        Stage("molecule newer", [["molecule", "test", "-s", "newer"]]),
        Stage("molecule deploy", [["molecule", "test", "-s", "deploy"]]),
    ]


@dataclass
class Result:
    """What came of a stage."""

    name: str
    seconds: float
    passed: int
    failed: list[str]
    """The tests that failed, each with the first line of why; the command, for a stage without tests of its own."""


def run(stage: Stage) -> Result:
    """Run the commands of *stage* in turn until one fails, showing their output."""
    print(f"\n===== {stage.name} =====", flush=True)
    report = REPORTS / f"{stage.name.replace(' ', '-')}.xml"
    environment = {**os.environ, "PATH": stage.search_path, "PYTEST_ADDOPTS": f"--junitxml={report}"}
    started = time.monotonic()
    failed = ""
    for command in stage.commands:
        print(f"$ {' '.join(command)}", flush=True)
        program = shutil.which(command[0], path=stage.search_path)
        if program is None:
            print(f"{command[0]} is not installed: `make venv` installs it")
        if program is None or subprocess.call([program, *command[1:]], cwd=stage.folder, env=environment) != 0:
            failed = " ".join(command)
            print(f"FAILED: {failed} (in {stage.folder})", flush=True)
            break
    passed, broken = read_report(report)
    if failed and not broken:
        broken = [failed]
    elif not failed and not passed:
        passed = 1
    return Result(stage.name, time.monotonic() - started, passed, broken)


def read_report(report: Path) -> tuple[int, list[str]]:
    """Return how many tests of a JUnit report passed, and what the others said; a skipped test has not passed."""
    if not report.exists():
        return 0, []
    passed, broken = 0, []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcomes = [outcome for kind in ("failure", "error", "skipped") for outcome in case.iter(kind)]
        if outcomes:
            why = outcomes[0].get("message", "").partition("\n")[0]
            broken.append(f"{case.get('classname')}::{case.get('name')}: {why}")
        else:
            passed += 1
    return passed, broken


def main() -> int:
    """Run the stages that were asked for, all by default. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tests/run.py", description="All checks, stage by stage.")
    parser.add_argument("stage", nargs="*", help="run only the stages whose name begins so, like: lint, unit, molecule")
    wanted = parser.parse_args().stage
    chosen = [s for s in stages() if not wanted or any(s.name.startswith(w) for w in wanted)]
    if not chosen:
        parser.error(f"no stage begins with {', '.join(wanted)}; there are: {', '.join(s.name for s in stages())}")
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    results = [run(stage) for stage in chosen]

    print(f"\n{'STAGE':<20} {'SECONDS':>8} {'PASSED':>7} {'FAILED':>7}")
    for result in results:
        print(f"{result.name:<20} {result.seconds:>8.0f} {result.passed:>7} {len(result.failed):>7}")
    print(f"{'all':<20} {sum(r.seconds for r in results):>8.0f}")
    for result in results:
        for name in result.failed:
            print(f"FAILED {result.name}: {name}")
    failed = sum(len(r.failed) for r in results)
    print(f"\n{sum(r.passed for r in results)} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
