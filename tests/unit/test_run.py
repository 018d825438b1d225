"""What `make test` says at its end."""

from __future__ import annotations

from pathlib import Path

from tests.run import read_report

REPORT = """<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
<testcase classname="tests.unit.test_a" name="passes"/>
<testcase classname="tests.unit.test_a" name="fails">
<failure message="assert 5.2 &lt; 5&#10; + where">long text</failure></testcase>
<testcase classname="tests.unit.test_b" name="breaks"><error message="no host"/></testcase>
<testcase classname="tests.unit.test_b" name="skipped"><skipped message="later"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read_as_what_passed_and_why_the_rest_did_not(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert read_report(report) == (
        1,
        [
            "tests.unit.test_a::fails: assert 5.2 < 5",
            "tests.unit.test_b::breaks: no host",
            "tests.unit.test_b::skipped: later",
        ],
    )


def test_a_stage_that_left_no_report_has_no_tests(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none.xml") == (0, [])
