"""`make test`: stages side by side, what measures alone, and an end that says what failed and how to run it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import run as gate
from tests.run import Failure, Lanes, Run, Stage, read_report, summary

REPORT = """<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
<testcase classname="tests.unit.test_a" name="passes"/>
<testcase classname="tests.unit.test_a" name="fails[x]">
<failure message="assert 5.2 &lt; 5&#10; + where">long text</failure></testcase>
<testcase classname="tests.unit.test_b" name="breaks"><error message="no host"/></testcase>
<testcase classname="tests.unit.test_b" name="skipped"><skipped message="later"/></testcase>
</testsuite></testsuites>"""
UNIT = Stage("unit", [])


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of logs and reports."""
    monkeypatch.setattr(gate, "REPORTS", tmp_path)
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    return tmp_path


def program(text: str) -> list[str]:
    """Return a command that runs a Python program."""
    return [sys.executable, "-c", text]


def stage(name: str, text: str = "", **fields: object) -> Stage:
    """Return a stage that runs a Python program; without one, it takes a moment."""
    commands = [program(text or "import time; time.sleep(0.3)")]
    return Stage(name, commands, **fields)  # type: ignore[arg-type]  # fields of the stage, by name


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
    said = summary(list(ran.values()), 1.0, "7")
    for part in ("because of this", "bad.log", 'again: TEST_SEED=7 make test STAGES="bad"', "1 passed, 1 failed"):
        assert part in said
    assert said.splitlines()[-1] == "1 passed, 1 failed"


def test_a_program_that_is_not_installed_is_a_failure_that_says_so() -> None:
    ran = run(Stage("lint", [["no-such-program"]]))
    assert ran["lint"].failures[0].why[-1] == "no-such-program is not installed: `make venv` installs it"


def test_the_reports_of_all_commands_count() -> None:
    writes = "import os, shlex; path = shlex.split(os.environ['PYTEST_ADDOPTS'])[0].split('=', 1)[1]; "
    writes += f"open(path, 'w').write({REPORT!r})"
    ran = run(Stage("twice", [program(writes), program(writes)]))
    assert (ran["twice"].passed, len(ran["twice"].failures)) == (2, 6)


def test_the_stages_get_the_seed_and_what_pytest_is_to_select() -> None:
    ran = run(stage("a", "import os; print(os.environ['TEST_SEED'], os.environ['PYTEST_ADDOPTS'])", tests="not alone"))
    said = ran["a"].log.read_text().splitlines()[-1]
    assert said.startswith("7 --junitxml=")
    assert said.endswith("-m 'not alone'")


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("tests/test_a.py::test_x PASSED     [ 50%]", (1, 0)),
        ("\x1b[2m│\x1b[0m test_a.py::test_x \x1b[31mFAILED\x1b[0m\x1b[32m   [100%]\x1b[0m", (0, 1)),
        ("[gw0] [ 10%] PASSED tests/unit/test_a.py::test_x", (1, 0)),
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
    passed, failures = read_report(report, UNIT)
    assert passed == 1
    assert [(failure.name, failure.why) for failure in failures] == [
        ("tests/unit/test_a.py::fails[x]", ["assert 5.2 < 5", " + where"]),
        ("tests/unit/test_b.py::breaks", ["no host"]),
        ("tests/unit/test_b.py::skipped", ["later"]),
    ]
    assert failures[0].again == ".venv/bin/pytest 'tests/unit/test_a.py::fails[x]'"
    (of_scenario, *_) = read_report(report, Stage("molecule default", [], scenario="default"))[1]
    assert "PYTEST_ADDOPTS='-k fails' .venv/bin/molecule verify -s default" in of_scenario.again


def test_a_stage_that_left_no_report_has_no_tests(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none.xml", UNIT) == (0, [])


def test_without_a_terminal_a_stage_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    run(stage("a", "print('much')"))
    started, ended = capsys.readouterr().out.splitlines()
    assert started == "a: started"
    assert ended.startswith("a: 1 passed, 0 failed, ")


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
    assert "interrupted" in summary(lanes.runs, 1.0, "7")


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


def test_failures_are_frozen_into_the_summary_with_their_log() -> None:
    failed = Run(stage("unit"), ended=time.monotonic(), failures=[Failure("tests/a.py::b", ["why"], "pytest a")])
    assert "FAILED unit: tests/a.py::b\n    why\n  log:   unit.log\n  again: TEST_SEED=7 pytest a" in summary(
        [failed], 1.0, "7"
    )
