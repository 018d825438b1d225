"""`make test`: stages side by side, what measures alone, and an end that says what failed and how to run it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import run as gate
from tests.run import Failure, Lanes, Run, Stage, read_report, summary

REPORT = """<testsuites><testsuite tests="5" failures="1" errors="2" skipped="1">
<testcase classname="tests.unit.test_a" name="passes" file="tests/unit/test_a.py"/>
<testcase classname="tests.unit.test_a.TestIt" name="fails[x]" file="tests/unit/test_a.py">
<failure message="assert 5.2 &lt; 5&#10; + where">long text</failure></testcase>
<testcase classname="tests.unit.test_b" name="breaks" file="tests/unit/test_b.py"><error message="no host"/></testcase>
<testcase classname="tests.unit.test_b" name="skipped" file="tests/unit/test_b.py"><skipped message="later"/></testcase>
<testcase classname="" name="tests.unit.test_c" file="tests/unit/test_c.py"><error message="collection failure">
tests/unit/test_c.py:1: in &lt;module&gt;
E   ModuleNotFoundError: No module named 'nothing'</error></testcase>
</testsuite></testsuites>"""
# Runs stages in a process of its own: the arguments are the folder for reports, and Python that makes the stages.
DRIVER = """
import sys
from pathlib import Path
from tests import run
from tests.run import Stage
run.REPORTS = Path(sys.argv[1])
run.remove_hosts = lambda names: (run.REPORTS / "removed").write_text(" ".join(names))
run.ENDING = tuple((number, 0.8) for number, _ in run.ENDING)
run.stages = lambda: eval(sys.argv[2])
sys.exit(run.main([]))
"""


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of logs and reports."""
    monkeypatch.setattr(gate, "REPORTS", tmp_path)
    # make test gives this to the run that these tests are in: its report is not theirs.
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    return tmp_path


def program(text: str) -> list[str]:
    """Return a command that runs a Python program."""
    return [sys.executable, "-c", text]


def stage(name: str, text: str = "", **fields: Any) -> Stage:
    """Return a stage that runs a Python program; without one, it takes a moment."""
    commands = [program(text or "import time; time.sleep(0.3)")]
    return Stage(name, commands, **fields)


def run(*stages: Stage, jobs: int = 2) -> dict[str, Run]:
    """Run the stages to their end."""
    lanes = Lanes(list(stages), jobs, dict(os.environ) | {"TEST_SEED": "7"})
    asyncio.run(lanes.run())
    return {one.stage.name: one for one in lanes.runs}


def overlap(one: Run, other: Run) -> bool:
    """Return whether two stages ran at the same time."""
    assert one.ended is not None
    assert other.ended is not None
    return one.started < other.ended and other.started < one.ended


def test_two_stages_run_at_once_and_a_third_waits_for_a_lane() -> None:
    ran = run(stage("a"), stage("b"), stage("c"))
    assert overlap(ran["a"], ran["b"])
    assert not (overlap(ran["a"], ran["c"]) and overlap(ran["b"], ran["c"]))
    alone = run(stage("a"), stage("b"), jobs=1)
    assert not overlap(alone["a"], alone["b"])


def test_a_stage_waits_for_those_that_it_needs_and_for_no_other() -> None:
    ran = run(stage("bed"), stage("scenario", after=("bed",)), stage("unit"))
    assert not overlap(ran["bed"], ran["scenario"])
    assert overlap(ran["bed"], ran["unit"])
    assert set(run(stage("scenario", after=("bed",)))) == {"scenario"}, (
        "a stage that was not asked for is not waited for"
    )


def test_a_stage_is_not_run_when_one_that_it_needs_has_passed_nothing(reports: Path) -> None:
    ran = run(
        stage("bed", "raise SystemExit(1)"),
        stage("host", after=("bed",)),
        stage("measures", after=("host",), alone=True),
        stage("other"),
    )
    assert [failure.name for failure in ran["host"].failures] == ["not run: bed failed"]
    assert [failure.name for failure in ran["measures"].failures] == ["not run: host failed"]
    assert ran["other"].passed == 1
    writes = "import os, shlex; path = shlex.split(os.environ['PYTEST_ADDOPTS'])[0].split('=', 1)[1]; "
    some = stage("some", f"{writes} open(path, 'w').write({REPORT!r}); raise SystemExit(1)")
    assert run(some, stage("host", after=("some",)))["host"].passed == 1, "some tests passed, so there is a host"


def test_what_measures_runs_alone_and_last() -> None:
    ran = run(stage("measures", alone=True), stage("a"), stage("b"), stage("counts", alone=True))
    assert list(ran) == ["a", "b", "measures", "counts"]
    assert not any(overlap(ran["measures"], other) for name, other in ran.items() if name != "measures")


def test_a_stage_without_tests_counts_as_one_and_shows_the_end_of_its_log_when_it_fails() -> None:
    ran = run(stage("good"), stage("bad", "print('because of this'); raise SystemExit(3)"))
    assert (ran["good"].passed, ran["good"].failures) == (1, [])
    assert ran["bad"].passed == 0
    (failure,) = ran["bad"].failures
    assert failure.why[-1] == "because of this"
    said = summary(list(ran.values()), 1.0, "TEST_SEED=7")
    for part in ("because of this", "bad.log", "again: TEST_SEED=7 make test STAGES=bad\n", "1 passed, 1 failed"):
        assert part in said
    assert said.splitlines()[-1] == "1 passed, 1 failed"


def test_a_program_that_is_not_installed_is_a_failure_that_says_so() -> None:
    ran = run(Stage("lint", [["no-such-program"]]))
    assert ran["lint"].failures[0].why[-1] == "no-such-program is not installed: `make venv` installs it"


def test_the_reports_of_all_commands_count() -> None:
    writes = "import os, shlex; path = shlex.split(os.environ['PYTEST_ADDOPTS'])[0].split('=', 1)[1]; "
    writes += "open(path, 'w').write({!r})"
    other = '<testsuite><testcase name="a" classname="b"/><testcase name="c" classname="b"/></testsuite>'
    ran = run(Stage("twice", [program(writes.format(REPORT)), program(writes.format(other))]))
    assert (ran["twice"].passed, len(ran["twice"].failures)) == (3, 4)


def test_the_stages_get_the_seed_and_what_pytest_is_to_select(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k mine")
    ran = run(stage("a", "import os; print(os.environ['TEST_SEED'], os.environ['PYTEST_ADDOPTS'])", tests="not alone"))
    said = ran["a"].log.read_text().splitlines()[-1]
    assert said.startswith("7 -k mine --junitxml=")
    assert said.endswith("-m 'not alone'")


def test_what_is_for_a_release_is_left_out_of_the_daily_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_ALL", raising=False)
    for environment, measured in (({}, False), ({"TEST_ALL": "1"}, True)):
        one = Run(stage("a", "import os; print(os.environ['PYTEST_ADDOPTS'])", for_a_release=("--cov",)))
        asyncio.run(one.execute(dict(os.environ) | environment))
        assert one.log.read_text().splitlines()[-1].endswith(" --cov") == measured


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("tests/test_a.py::test_x PASSED     [ 50%]", (1, 0)),
        ("\x1b[2m│\x1b[0m test_a.py::test_x \x1b[31mFAILED\x1b[0m\x1b[32m   [100%]\x1b[0m", (0, 1)),
        ("[gw0] [ 10%] PASSED tests/unit/test_a.py::test_x", (1, 0)),
        ("test_a.py::test_x SKIPPED (later)     [ 50%]", (0, 1)),
        ("FAILED tests/unit/test_a.py::test_x - assert", (0, 0)),
    ],
)
def test_tests_are_counted_while_they_run(line: str, counted: tuple[int, int]) -> None:
    running = Run(stage("a"))
    running.log.write_text(f"{line}\n")
    assert running.counts() == counted


def test_a_report_is_read_as_what_passed_and_why_the_rest_did_not(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    passed, failures = read_report(report)
    assert passed == 1
    assert [(failure.name, failure.why) for failure in failures] == [
        ("tests/unit/test_a.py::TestIt::fails[x]", ["assert 5.2 < 5", " + where"]),
        ("tests/unit/test_b.py::breaks", ["no host"]),
        ("tests/unit/test_b.py::skipped", ["later"]),
        ("tests/unit/test_c.py", ["ModuleNotFoundError: No module named 'nothing'"]),
    ]


def test_a_failed_test_is_run_again_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(gate, "REPORTS", tmp_path / "reports")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "test_it.py").write_text(
        "import os\ndef test_good(): pass\ndef test_bad():\n    seed = os.environ['TEST_SEED']\n    assert seed == ''\n"
    )
    chosen = [Stage("some tests", [["pytest", "-v", "-p", "no:cacheprovider", "test_it.py"]], folder=tmp_path)]
    monkeypatch.setattr(gate, "stages", lambda: chosen)
    monkeypatch.setenv("TEST_SEED", "4711")
    assert gate.main([]) == 1
    out = capsys.readouterr().out
    assert out.startswith("TEST_SEED=4711\n")
    assert "FAILED some tests: test_it.py::test_bad\n    AssertionError: assert '4711' == ''\n" in out
    assert out.endswith("\n1 passed, 1 failed\n")
    (line,) = [line.partition(":")[2] for line in out.splitlines() if line.startswith("  again:")]
    monkeypatch.delenv("TEST_SEED")
    done = subprocess.run(line, shell=True, cwd=gate.ROOT, capture_output=True, text=True, timeout=60)
    assert "1 failed in" in done.stdout, line
    assert "assert '4711' == ''" in done.stdout, line


def test_a_test_of_a_scenario_is_run_again_whatever_the_scenario_selects() -> None:
    failure = Failure("default/tests/test_x.py::test_y[a b]", [])
    line = gate.again(Stage("molecule default", [], scenario="default"), failure, "TEST_SEED=7")
    assert line == (
        ". .venv/bin/activate && molecule converge -s default && "
        "TEST_SEED=7 PYTEST_ADDOPTS='-o python_functions=test_y' molecule verify -s default"
    )
    # A host of refusals is bare: converging would deploy the stack.
    assert "molecule create -s r &&" in gate.again(Stage("r", [], scenario="r", deployed=False), failure, "")


def test_the_chosen_option_selects_a_test_beside_k_of_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "not inference", "test_it.py"]
    environment = os.environ | {"PYTEST_ADDOPTS": "-o python_functions=test_two"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("given", ["", "4711"])
def test_all_stages_get_one_seed_which_is_printed_first(
    given: str, reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_SEED", given)
    monkeypatch.delenv("TEST_ALL", raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    told = "import os; print(*(os.environ.get(name) for name in ('TEST_SEED', 'TEST_ALL', 'PYTHONUNBUFFERED')))"
    monkeypatch.setattr(gate, "stages", lambda: [stage("a", told), stage("b", told)])
    for arguments, everything in (([], None), (["--all"], 1)):
        assert gate.main(arguments) == 0
        shown = capsys.readouterr().out.partition("\n")[0]
        seed = shown.removeprefix("TEST_SEED=").removesuffix(" TEST_ALL=1")
        assert seed == (given or seed)
        assert shown.endswith("TEST_ALL=1") == bool(everything)
        ends = {(reports / f"{name}.log").read_text().splitlines()[-1] for name in "ab"}
        assert ends == {f"{seed} {everything} 1"}


def test_stages_are_chosen_by_the_beginnings_of_their_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "stages", lambda: [Stage(n, [["true"]]) for n in ("lint docs", "lint python", "unit")])
    for given, ended in ((["lint"], 2), (["lint-p", "unit"], 2), (["lint d"], 1), ([], 3)):
        assert gate.main(given) == 0
        assert capsys.readouterr().out.endswith(f"\n{ended} passed, 0 failed\n")
    with pytest.raises(SystemExit, match="2"):
        gate.main(["lint", "units"])
    assert "no stage begins with units; there are: lint-docs, lint-python, unit" in capsys.readouterr().err


def test_a_stage_that_left_no_report_has_no_tests(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none.xml") == (0, [])


def test_without_a_terminal_a_stage_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run(stage("a", "print('much')"))
    started, ended = capsys.readouterr().out.splitlines()
    assert started == "a: started"
    assert ended.startswith("a: 1 passed, 0 failed, ")


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals arrive also when the tests were started with `nohup` or from the background of a script."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number in numbers:
        signal.signal(number, before[number])


@pytest.mark.usefixtures("heard")
def test_stages_hear_an_interruption_where_the_run_itself_does_not(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = "import signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    lanes = Lanes([stage("one", code, folder=tmp_path)], 1, dict(os.environ))
    asyncio.run(lanes.run())
    assert lanes.runs[0].failures == []


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_runs_and_leaves_no_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(gate, "remove_hosts", removed.extend)
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    chosen = [
        stage("waits", child, scenario="some", folder=tmp_path, keeps_host=True),
        stage("later", after=("waits",)),
    ]
    lanes = Lanes(chosen, 2, dict(os.environ))

    async def interrupt() -> bool:
        task = asyncio.create_task(gate.interruptible(lanes))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.02)
        os.kill(os.getpid(), number)
        return await task

    started = time.monotonic()
    assert asyncio.run(interrupt())
    assert time.monotonic() - started < 15
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
        pytest.fail("the child still runs")
    assert removed == ["some"]
    assert "interrupted" in summary(lanes.runs, 1.0, "")


def test_the_stages_of_the_project_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = gate.stages()
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    assert all(set(one.after) <= set(names) for one in found)
    for kept in (one for one in found if one.keeps_host):
        (ends,) = [one for one in found if one.scenario == kept.scenario and not one.keeps_host]
        assert ends.after == (kept.name,)
        assert ends.name.startswith(kept.name), "who asks for the first by its name gets the second, too"
        assert {kept.tests, ends.tests} == {"alone", "not alone"}, "together they run all tests"


def test_the_summary_has_why_the_log_and_the_line(tmp_path: Path) -> None:
    now = time.monotonic()
    failed = Run(stage("unit", folder=tmp_path), now, now + 4, failures=[Failure("tests/a.py::b", ["why"])])
    said = summary([failed, Run(stage("b"), now, now + 5, passed=1)], 6.0, "TEST_SEED=7")
    assert [line.split()[:2] for line in said.splitlines()[2:5]] == [["unit", "4"], ["b", "5"], ["all", "6"]]
    assert "(9 s one after the other" in said
    assert "FAILED unit: tests/a.py::b\n    why\n  log:   unit.log\n  again: TEST_SEED=7 " in said


def driven(reports: Path, chosen: str, stdout: int) -> subprocess.Popen[bytes]:
    """Start a process that runs stages."""
    environment = os.environ | {"PYTHONPATH": str(Path(gate.__file__).parents[1]), "TERM": "xterm"}
    return subprocess.Popen([*program(DRIVER), str(reports), chosen], env=environment, stdout=stdout)


def shown_on(terminal: int) -> str:
    """Return what a program writes to a pseudo terminal until it ends."""
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            shown += part
    return shown.decode()


def test_a_terminal_shows_a_line_for_each_stage_that_runs(tmp_path: Path) -> None:
    code = "import time; print('t.py::a PASSED [ 50%]', flush=True); time.sleep(2.5)"
    terminal, inside = pty.openpty()
    process = driven(tmp_path, f"[Stage('unit', [[sys.executable, '-c', {code!r}]])]", stdout=inside)
    os.close(inside)
    going, _, ended = shown_on(terminal).partition("unit: ")
    assert process.wait() == 0
    assert "…  unit  1 s  1 passed, 0 failed" in going
    assert "started" not in going
    assert ended.startswith("1 passed, 0 failed, ")
    assert "…" not in ended


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_a_signal_also_when_it_comes_twice(number: signal.Signals, tmp_path: Path) -> None:
    deaf = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(60)"
    code = (
        f"import subprocess, sys, os, time; child = subprocess.Popen([sys.executable, '-c', {deaf!r}]);"
        "time.sleep(0.5); print(os.getpid(), child.pid, flush=True); child.wait()"
    )
    command = f"[[sys.executable, '-c', {code!r}]]"
    chosen = (
        f"[Stage('quick', [['true']], scenario='kept', keeps_host=True), Stage('one', {command}, scenario='a'),"
        f" Stage('two', {command}, scenario='b'), Stage('later', [['true']], scenario='never')]"
    )
    process = driven(tmp_path, chosen, stdout=subprocess.PIPE)
    pids: list[int] = []
    until = time.monotonic() + 20
    while len(pids) < 4:
        assert time.monotonic() < until
        time.sleep(0.1)
        logs = [log for log in (tmp_path / "one.log", tmp_path / "two.log") if log.exists()]
        last = " ".join(line for log in logs for line in log.read_text().splitlines()[-1:])
        pids = [int(word) for word in last.split() if word.isdigit()]
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(number)
    out = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 130
    assert not [pid for pid in pids if runs(pid)]
    assert (tmp_path / "removed").read_text() == "a b kept"
    rows = [line.split() for line in out.splitlines()]
    assert ["quick", "0", "1", "0"] in rows
    assert [row[0] for row in rows if row[-1:] == ["interrupted"]] == ["one", "two"]
    assert out.endswith("\n1 passed, 0 failed\n")


def runs(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
