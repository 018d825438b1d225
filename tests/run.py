"""`make test`: every check of the project in stages, two at once, with the time that each one took.

All stages run, also after one has failed, so that one run shows all that is wrong. How to read it: docs/testing.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / ".testbed" / "reports"
BACKEND = ROOT / "backend"
BACKEND_BIN = ROOT / ".cache" / "backend-venv" / "bin"
# How an interrupted stage is ended, and how many seconds it gets each time. SIGINT comes first: pytest removes the
# containers of its fixtures then, and does not on SIGTERM.
ENDING = ((signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, 5))
WHY_LINES, LOG_LINES, SLOWEST = 6, 15, 12
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# A line of pytest -v, with its outcome before the percentage, or behind it when several processes share the tests.
OUTCOME = re.compile(
    r"::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b.*\[ *\d+%\]$|\[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED|XFAIL) ",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Stage:
    """A named list of commands; a stage with tests of its own leaves JUnit reports, any other counts as one test."""

    name: str
    commands: list[list[str]]
    folder: Path = ROOT
    after: tuple[str, ...] = ()
    """The stages that must have ended before; one that passed nothing has left nothing to go on with."""
    alone: bool = False
    """It measures time or counts requests: nothing else runs meanwhile, and it comes after all that need not."""
    scenario: str = ""
    """The Molecule scenario that it runs; its host is gone when the stage has ended, unless `keeps_host`."""
    keeps_host: bool = False
    tests: str = ""
    """What pytest's `-m` selects."""
    for_a_release: tuple[str, ...] = ()
    """Options of pytest with `--all` only."""
    deployed: bool = True
    """The tests of its scenario are for a host with the stack, and not for a bare one."""

    @property
    def search_path(self) -> str:
        """Where its programs are looked up: beside this Python; the backend has an environment of its own."""
        first = BACKEND_BIN if self.folder == BACKEND else Path(sys.executable).parent
        return os.pathsep.join([str(first), os.environ["PATH"]])

    @property
    def file(self) -> str:
        """The beginning of the names of its log and its reports."""
        return self.name.replace(" ", "-")


def fresh(scenario: str) -> list[list[str]]:
    """Return the commands that run a scenario on a new host and keep it: `--destroy never` also keeps an old one."""
    return [["molecule", "destroy", "-s", scenario], ["molecule", "test", "-s", scenario, "--destroy", "never"]]


def stages() -> list[Stage]:
    """Return all stages in the order in which they start when nothing holds them up."""
    dockerfiles = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/testbed/images/*/Dockerfile"))
    scripts = sorted(
        str(p.relative_to(ROOT)) for folder in ("roles", "tests", ".ci") for p in (ROOT / folder).rglob("*.sh")
    )
    bed = ("test bed",)
    return [
        Stage("test bed", [[sys.executable, "-m", "tests.testbed", "up"]]),
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
        Stage("unit", [["pytest", "-v", "-n", "2", "tests/unit"]]),
        # Deployed first, for others start from the host that it saves.
        Stage(
            "molecule default deployed",
            [
                ["molecule", action, "-s", "default"]
                for action in ("destroy", "syntax", "check", "converge", "idempotence", "check", "side-effect")
            ],
            after=bed,
            scenario="default",
            keeps_host=True,
        ),
        Stage(
            "backend",
            # Tests of one file share what they make.
            [["pytest", "-v", "-n", "2", "--dist", "loadfile"]],
            folder=BACKEND,
            # It starts servers and a browser from the test bed's images.
            after=bed,
            # Measuring costs as much processor time as the tests themselves.
            for_a_release=("--cov", "--cov-report=term:skip-covered"),
        ),
        Stage(
            "molecule newer",
            fresh("newer"),
            after=bed,
            scenario="newer",
            keeps_host=True,
            tests="not alone",
        ),
        Stage(
            "molecule operations",
            [["molecule", "test", "-s", "operations"]],
            after=("test bed", "molecule default deployed"),
            scenario="operations",
        ),
        Stage(
            "molecule default",
            [["molecule", "verify", "-s", "default"]],
            after=("molecule default deployed",),
            scenario="default",
            keeps_host=True,
            tests="not alone",
        ),
        Stage(
            "molecule refusals",
            [["molecule", "test", "-s", "refusals"]],
            after=bed,
            scenario="refusals",
            deployed=False,
        ),
        Stage("stand-ins", [["pytest", "-v", "tests/testbed"]], after=bed),
        Stage(
            "molecule default alone",
            [["molecule", "verify", "-s", "default"], ["molecule", "destroy", "-s", "default"]],
            after=("molecule default deployed", "molecule default"),
            alone=True,
            scenario="default",
            tests="alone",
        ),
        Stage(
            "molecule newer alone",
            [["molecule", "verify", "-s", "newer"], ["molecule", "destroy", "-s", "newer"]],
            after=("molecule newer",),
            alone=True,
            scenario="newer",
            tests="alone",
        ),
        Stage(
            "molecule deploy",
            [["molecule", "test", "-s", "deploy"]],
            after=("test bed", "molecule default deployed"),
            alone=True,
            scenario="deploy",
        ),
    ]


@dataclass(frozen=True)
class Failure:
    """A test that failed, or a command of a stage, and why."""

    name: str
    why: list[str]
    is_test: bool = True


@dataclass
class Run:
    """A stage that runs or has ended."""

    stage: Stage
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    passed: int = 0
    failures: list[Failure] = field(default_factory=list)
    tests: list[tuple[float, str]] = field(default_factory=list)
    """The seconds of each test, with its name."""

    @property
    def log(self) -> Path:
        """The file with all that its commands print."""
        return REPORTS / f"{self.stage.file}.log"

    @property
    def seconds(self) -> float:
        """How long it has taken so far, or in all."""
        return (self.ended or time.monotonic()) - self.started

    def counts(self) -> tuple[int, int]:
        """Return how many tests have passed and failed: from the log while it runs, then from the reports."""
        if self.ended is not None:
            return self.passed, len(self.failures)
        outcomes = [a or b for a, b in OUTCOME.findall(ANSI.sub("", self.log.read_text(errors="replace")))]
        return outcomes.count("PASSED"), len(outcomes) - outcomes.count("PASSED")

    def line(self) -> list[str]:
        """Return what is shown of it: name, seconds, tests passed and failed."""
        passed, failed = self.counts()
        return [self.stage.name, f"{self.seconds:.0f}", str(passed), str(failed)]

    async def execute(self, environment: dict[str, str]) -> None:
        """Run the commands of the stage in turn until one fails, with their output in its log."""
        stage, failed = self.stage, ""
        reports = [REPORTS / f"{stage.file}-{number}.xml" for number in range(len(stage.commands))]
        with self.log.open("w") as log:
            for command, report in zip(stage.commands, reports, strict=True):
                # Of the two forms of a report, it is the older one that names the file of a test.
                options = [f"--junitxml={report}", "-o", "junit_family=xunit1"]
                options += ["-m", stage.tests] if stage.tests else []
                options += stage.for_a_release if environment.get("TEST_ALL") else ()
                told = {
                    "PATH": stage.search_path,
                    "PYTEST_ADDOPTS": f"{environment.get('PYTEST_ADDOPTS', '')} {shlex.join(options)}".strip(),
                    # Molecule would keep what pytest prints until there is a lot of it.
                    "PYTHONUNBUFFERED": "1",
                }
                print(f"$ {shlex.join(command)}", file=log, flush=True)
                program = shutil.which(command[0], path=stage.search_path)
                if program is None:
                    print(f"{command[0]} is not installed: `make venv` installs it", file=log, flush=True)
                if program is None or await call([program, *command[1:]], log.fileno(), stage, environment | told):
                    failed = shlex.join(command)
                    break
        if stage.scenario and not stage.keeps_host:
            remove_hosts([stage.scenario])
        for report in reports:
            passed, failures, tests = read_report(report)
            self.passed += passed
            self.failures += failures
            self.tests += tests
        if failed and not self.failures:
            end = ANSI.sub("", self.log.read_text(errors="replace")).splitlines()[-LOG_LINES:]
            self.failures = [Failure(failed, end, is_test=False)]
        elif not failed and not self.passed:
            self.passed = 1
        self.ended = time.monotonic()


async def call(command: list[str], log: int, stage: Stage, environment: dict[str, str]) -> int:
    """Run a command to its end and return its exit code. When this is cancelled, its processes are ended, too."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=stage.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=hear_interruptions,
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        await end_group(process.pid)
        raise


def hear_interruptions() -> None:
    """Have the new process end on SIGINT, also where this one was started to ignore it: `make test &` in a script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def end_group(group: int) -> None:
    """End all processes of a group, the gentle way first."""
    with contextlib.suppress(ProcessLookupError):
        for number, patience in ENDING:
            os.killpg(group, number)
            until = time.monotonic() + patience
            while time.monotonic() < until:
                await asyncio.sleep(0.05)
                os.killpg(group, 0)


def remove_hosts(names: list[str]) -> None:
    """Remove the hosts of these scenarios, when there are any."""
    subprocess.run(
        [sys.executable, "-m", "tests.testbed", "remove", *names], cwd=ROOT, check=False, capture_output=True
    )


def read_report(report: Path) -> tuple[int, list[Failure], list[tuple[float, str]]]:
    """Return of a JUnit report how many tests passed, what the others said, and the seconds of each test.

    A skipped test has not passed.
    """
    if not report.exists():
        return 0, [], []
    passed, failures, tests = 0, [], []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        tests.append((float(case.get("time", 0)), f"{case.get('file') or ''}::{case.get('name')}"))
        outcomes = [outcome for kind in ("failure", "error", "skipped") for outcome in case.iter(kind)]
        if not outcomes:
            passed += 1
            continue
        why = outcomes[0].get("message", "")
        if why == "collection failure":
            why = "\n".join(re.findall(r"^E +(.*)", outcomes[0].text or "", re.MULTILINE)) or why
        file, classname, name = (case.get(key, "") for key in ("file", "classname", "name"))
        # The class of a test follows its module; a module that cannot be imported has only a file.
        inside = classname.removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
        test = "::".join([file, *inside.split("."), name] if inside else [file, name] if classname else [file])
        failures.append(Failure(test, [line for line in why.splitlines() if line.strip()][:WHY_LINES]))
    return passed, failures, tests


def again(stage: Stage, failure: Failure, settings: str) -> str:
    """Return the line that runs one test again, or its stage, from the root of the repository."""
    if not failure.is_test:
        return f"{settings} make test STAGES={stage.file}"
    if stage.scenario:
        # Scenarios choose tests by -k, which would override a -k from here, and Molecule takes no name of a test.
        name = failure.name.rpartition("::")[2].partition("[")[0]
        host = f"molecule {'converge' if stage.deployed else 'create'} -s {stage.scenario}"
        return (
            f". .venv/bin/activate && {host} && "
            f"{settings} PYTEST_ADDOPTS='-o python_functions={name}' molecule verify -s {stage.scenario}"
        )
    folder = "" if stage.folder == ROOT else f"cd {os.path.relpath(stage.folder, ROOT)} && "
    pytest = os.path.relpath((BACKEND_BIN if stage.folder == BACKEND else Path(sys.executable).parent), stage.folder)
    return f"{folder}{settings} {pytest}/pytest {shlex.quote(failure.name)}"


class Lanes:
    """Runs stages, several at once, and shows how it goes."""

    def __init__(self, chosen: list[Stage], jobs: int, environment: dict[str, str]) -> None:
        self.runs: list[Run] = []
        self._waiting = list(chosen)
        self._names = {stage.name for stage in chosen}
        self._jobs = jobs
        self._environment = environment
        self._tasks: dict[asyncio.Task[None], Run] = {}
        self._console = Console(highlight=False, markup=False)
        self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=1, transient=True)

    async def run(self) -> None:
        """Run all stages. When this is cancelled, those that run are ended and no host is left."""
        with self._live if self._console.is_terminal else contextlib.nullcontext():
            try:
                while True:
                    # Whether one may start depends on what has been started before it.
                    while stage := next(filter(self._may_start, self._waiting), None):
                        self._start(stage)
                    if not (self._tasks or self._waiting):
                        break
                    ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        self._end(task)
            except asyncio.CancelledError:
                self._console.print("interrupted: ending what runs, and removing its hosts")
                raise
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                if self._tasks:
                    remove_hosts(sorted({run.stage.scenario for run in self.runs if run.stage.scenario}))

    def _may_start(self, stage: Stage) -> bool:
        """Return whether there is a lane for a stage, and nothing that it has to wait for."""
        ended = {run.stage.name for run in self.runs if run.ended is not None}
        running = len(self._tasks)
        if running >= self._jobs or not self._names.intersection(stage.after) <= ended:
            return False
        return not stage.alone or (not running and all(other.alone for other in self._waiting))

    def _start(self, stage: Stage) -> None:
        run = Run(stage)
        run.log.touch()
        self.runs.append(run)
        self._waiting.remove(stage)
        if missing := [r.stage.name for r in self.runs if r.stage.name in stage.after and not r.passed]:
            why = f"not run: {', '.join(missing)} failed"
            run.log.write_text(f"{why}\n")
            run.failures.append(Failure(why, [], is_test=False))
            run.ended = run.started
            self._say(run)
            return
        self._tasks[asyncio.create_task(run.execute(self._environment))] = run
        if not self._console.is_terminal:
            print(f"{stage.name}: started", flush=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        run = self._tasks.pop(task)
        task.result()
        self._say(run)

    def _say(self, run: Run) -> None:
        """Print the line of a stage that has ended."""
        name, seconds, passed, failed = run.line()
        if self._console.is_terminal:
            self._live.refresh()
        line = f"{name}: {passed} passed, {failed} failed, {seconds} s"
        self._console.print(Text(line, style="red" if run.failures else ""))

    def _picture(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for run in list(self._tasks.values()):  # It is another thread that draws.
            name, seconds, passed, failed = run.line()
            so_far = "" if passed == failed == "0" else f"{passed} passed, {failed} failed"
            table.add_row("…", name, f"{seconds} s", so_far)
        return table


def summary(runs: list[Run], seconds: float, settings: str) -> str:
    """Return the table of all stages, what failed and why, and the closing line that counts."""
    lines = ["", f"{'STAGE':<24} {'SECONDS':>8} {'PASSED':>7} {'FAILED':>7}"]
    for run in runs:
        name, took, passed, failed = run.line()
        note = "" if run.ended is not None else "  interrupted"
        lines.append(f"{name:<24} {took:>8} {passed:>7} {failed:>7}{note}")
    together = sum(run.seconds for run in runs)
    lines.append(f"{'all':<24} {seconds:>8.0f}   ({together:.0f} s one after the other; {settings})")
    tests = sorted(((seconds, name, run.stage.name) for run in runs for seconds, name in run.tests), reverse=True)
    if tests:
        lines += ["", "SLOWEST TESTS"]
        lines += [f"{seconds:>8.0f} s  {stage}: {name}" for seconds, name, stage in tests[:SLOWEST]]
    for run in runs:
        for failure in run.failures:
            lines += ["", f"FAILED {run.stage.name}: {failure.name}", *(f"    {line}" for line in failure.why)]
            lines += [f"  log:   {os.path.relpath(run.log, ROOT)}", f"  again: {again(run.stage, failure, settings)}"]
    lines += ["", f"{sum(run.passed for run in runs)} passed, {sum(len(run.failures) for run in runs)} failed"]
    return "\n".join(lines)


async def interruptible(lanes: Lanes) -> bool:
    """Run all stages; return whether a signal put an end to that. Another signal changes nothing."""
    task = asyncio.create_task(lanes.run())
    # Stages have sessions of their own, so a terminal that is closed reaches them only through here.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


def main(arguments: list[str] | None = None) -> int:
    """Run the stages that were asked for, all by default. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tests/run.py", description="All checks, in stages. See docs/testing.md.")
    parser.add_argument("stage", nargs="*", help="run only the stages whose name begins so, like: lint, unit, molecule")
    parser.add_argument(
        "-j", "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="stages at once (default: 2)"
    )
    parser.add_argument("--all", action="store_true", help="for a release: kill at all moments, measure coverage")
    given = parser.parse_args(arguments)
    # `make test STAGES="molecule default"` arrives as two words: a name of a stage is one word with hyphens.
    wanted = [word.replace(" ", "-") for word in given.stage]
    unknown = [word for word in wanted if not any(s.file.startswith(word) for s in stages())]
    if unknown:
        parser.error(f"no stage begins with {', '.join(unknown)}; there are: {', '.join(s.file for s in stages())}")
    chosen = [s for s in stages() if not wanted or s.file.startswith(tuple(wanted))]
    if given.jobs < 1:
        parser.error("--jobs: at least 1")
    seed = os.environ.get("TEST_SEED") or str(random.randrange(1_000_000))
    settings = {"TEST_SEED": seed} | ({"TEST_ALL": "1"} if given.all else {})
    shown = " ".join(f"{name}={value}" for name, value in settings.items())
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    print(shown, flush=True)
    started = time.monotonic()
    lanes = Lanes(chosen, given.jobs, os.environ | settings)
    interrupted = asyncio.run(interruptible(lanes))
    print(summary(lanes.runs, time.monotonic() - started, shown), flush=True)
    if interrupted:
        return 130
    return 1 if any(run.failures for run in lanes.runs) else 0


if __name__ == "__main__":
    sys.exit(main())
