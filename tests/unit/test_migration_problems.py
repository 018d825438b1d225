# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Migrations that the running version cannot live with are found before anything is changed; by the real squawk."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter import migration_problems as module
from ansible_collections.tradingbot.stack.plugins.filter.migration_problems import FilterModule, migration_problems
from ansible_collections.tradingbot.stack.plugins.filter.problems import problems

ROOT = Path(__file__).resolve().parents[2]
DROP = "ALTER TABLE users DROP COLUMN nick;\n"


def plan(*scripts: str, contract: str | None = None, current: str | None = "0003", **more: Any) -> dict[str, Any]:
    """What `tradingbot migrate --plan` prints when *scripts* are pending after 0003."""
    pending = [
        {"revision": f"{number:04}", "name": "change", "contract": contract, "sql": script}
        for number, script in enumerate(scripts, start=4)
    ]
    return {"current": current, "head": f"{3 + len(scripts):04}", "oldest": "0001", "pending": pending, **more}


def only(found: list[dict[str, str]]) -> dict[str, str]:
    assert len(found) == 1, found
    assert problems(found)  # it has what the text of a refusal needs
    return found[0]


def without_squawk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder))


HARMLESS = {
    "new table": "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL);",
    "new column": "ALTER TABLE users ADD COLUMN nick text;",
    "new column with a default": "ALTER TABLE users ADD COLUMN nick text DEFAULT '' NOT NULL;",
    "index of a new table": "CREATE TABLE notes (text text);\nCREATE INDEX ix ON notes (text);",
    "data": "UPDATE users SET nick = '' WHERE nick IS NULL;",
}


@pytest.mark.parametrize("script", HARMLESS.values(), ids=HARMLESS)
def test_what_the_running_version_lives_with_is_no_problem(script: str) -> None:
    assert migration_problems(plan(script)) == []
    assert FilterModule().filters()["migration_problems"] is migration_problems


INCOMPATIBLE = {
    "ban-drop-column": DROP,
    "ban-drop-table": "DROP TABLE users;",
    "renaming-column": "ALTER TABLE users RENAME COLUMN nick TO name;",
    "renaming-table": "ALTER TABLE users RENAME TO people;",
    "changing-column-type": "ALTER TABLE users ALTER COLUMN nick TYPE bigint USING nick::bigint;",
    "adding-required-field": "ALTER TABLE users ADD COLUMN nick text NOT NULL;",
    "adding-not-nullable-field": "ALTER TABLE users ALTER COLUMN nick SET NOT NULL;",
    "ban-drop-default": "ALTER TABLE users ALTER COLUMN nick DROP DEFAULT;",
    "ban-drop-not-null": "ALTER TABLE users ALTER COLUMN nick DROP NOT NULL;",
    "ban-drop-view": "DROP VIEW v;",
    "ban-truncate-cascade": "TRUNCATE users CASCADE;",
}


@pytest.mark.parametrize(("rule", "script"), INCOMPATIBLE.items(), ids=INCOMPATIBLE)
def test_what_it_cannot_live_with_is_refused(rule: str, script: str) -> None:
    finding = only(migration_problems(plan("SELECT 1;", f"SELECT 1;\n\n{script}"), allow_contract=True))
    assert finding["what"] == "schema revision 0005 (change)"
    assert finding["why"].startswith(f"line 3, `{script.strip()}`: ")
    assert finding["why"].endswith(f"The version that runs still uses it ({rule}).")
    assert "do it in two releases" in finding["fix"]
    assert "docs/migrations.md" in finding["fix"]


@pytest.mark.parametrize("rule", INCOMPATIBLE)
@pytest.mark.parametrize("comment", ["squawk-ignore", "squawk-ignore-file", "Squawk-Ignore"])
def test_a_comment_does_not_make_it_harmless(rule: str, comment: str) -> None:
    script = f"-- {comment} {rule}\n{INCOMPATIBLE[rule]}"
    assert [f"({rule})" in finding["why"] for finding in migration_problems(plan(script))] == [True]


BLOCKING = {
    "require-concurrent-index-creation": "CREATE INDEX ix ON users (nick);",
    "constraint-missing-not-valid": "ALTER TABLE users ADD CONSTRAINT c CHECK (nick <> '');",
    "prefer-timestamp-tz": "ALTER TABLE users ADD COLUMN at timestamp;",
}


@pytest.mark.parametrize(("rule", "script"), BLOCKING.items(), ids=BLOCKING)
@pytest.mark.parametrize("contract", [None, "0003"])
def test_other_findings_are_refused_unless_the_revision_says_why_not(
    rule: str, script: str, contract: str | None
) -> None:
    allowed: dict[str, Any] = {"allow_contract": True, "running_head": "0003"}
    found = migration_problems(plan(script, contract=contract), **allowed)
    (finding,) = [finding for finding in found if f"({rule})" in finding["why"]]
    assert finding["why"].startswith(f"line 1, `{script}`: ")
    assert f"where it does no harm, name {rule} and the reason in the revision's lint_exceptions" in finding["fix"]
    passed = f"-- we know better\n-- squawk-ignore-file {rule}\n{script}"
    assert [f for f in migration_problems(plan(passed, contract=contract), **allowed) if rule in f["why"]] == []


DOUBTFUL = {
    "ban-new-write-restriction": "ALTER TABLE users ADD CONSTRAINT c CHECK (nick <> '') NOT VALID;",
    "ban-set-default": "ALTER TABLE users ALTER COLUMN nick SET DEFAULT 'x';",
    "ban-drop-constraint": "ALTER TABLE users DROP CONSTRAINT c;",
    "ban-revoke": "REVOKE SELECT ON users FROM reader;",
    "ban-replace-view-function": "CREATE OR REPLACE VIEW v AS SELECT 1;",
    "ban-add-enum-value": "ALTER TYPE t ADD VALUE 'x' AFTER 'y';",
    "ban-alter-row-level-security": "ALTER TABLE users ENABLE ROW LEVEL SECURITY;",
}


@pytest.mark.parametrize(("rule", "script"), DOUBTFUL.items(), ids=DOUBTFUL)
def test_what_it_may_fall_over_needs_a_reason_or_a_contract(rule: str, script: str) -> None:
    assert f"({rule})" in only(migration_problems(plan(script)))["why"]
    assert migration_problems(plan(f"-- nobody writes that\n-- squawk-ignore-file {rule}\n{script}")) == []
    assert migration_problems(plan(script, contract="0003"), True, "0003") == []


def test_each_violation_is_a_finding_of_its_revision_in_the_order_of_lines() -> None:
    found = migration_problems(plan("CREATE INDEX ix ON users (nick);\n" + DROP, DROP))
    assert [(finding["what"][16:20], finding["why"].partition(",")[0]) for finding in found] == [
        ("0004", "line 1"),
        ("0004", "line 2"),
        ("0005", "line 1"),
    ]


def test_what_squawk_cannot_read_is_refused() -> None:
    found = migration_problems(plan("DROP nonsense here;"), allow_contract=True)
    assert found
    assert all("(syntax-error)" in finding["why"] for finding in found)


class TestContract:
    """A revision that says which head can live with what it leaves."""

    def test_needs_to_be_allowed(self) -> None:
        finding = only(migration_problems(plan(DROP, contract="0003"), running_head="0003"))
        assert finding["what"] == "schema revision 0004 (change)"
        assert "only versions whose head is 0003 or later can live with it" in finding["why"]
        assert "-e backend_allow_contract=true" in finding["fix"]

    @pytest.mark.parametrize("word", ["false", "no", "0", False, 0])
    def test_a_word_for_no_is_no(self, word: str | bool) -> None:
        """`-e backend_allow_contract=false` is a string."""
        assert migration_problems(plan(DROP, contract="0003"), word, "0003") != []

    @pytest.mark.parametrize("word", ["true", "yes", True])
    def test_is_done_when_it_is_allowed_and_the_expanding_release_runs(self, word: str | bool) -> None:
        for running in ("0003", "0004"):
            assert migration_problems(plan(DROP, contract="0003"), word, running) == []

    def test_needs_the_expanding_release_to_run(self) -> None:
        finding = only(migration_problems(plan(DROP, contract="0003"), True, "0002"))
        assert finding["why"].endswith("and the head of the version that runs is 0002")
        assert "first deploy a version whose head is at least 0003 and before 0004" in finding["fix"]

    def test_expanding_and_contracting_in_one_deploy_is_refused(self) -> None:
        both = plan("ALTER TABLE users ADD COLUMN name text;", DROP)
        both["pending"][1]["contract"] = "0004"
        finding = only(migration_problems(both, True, "0003"))
        assert finding["what"] == "schema revision 0005 (change)"
        assert "first deploy a version whose head is at least 0004 and before 0005" in finding["fix"]

    @pytest.mark.parametrize("unknown", [None, ""])
    def test_needs_to_know_what_runs(self, unknown: str | None) -> None:
        finding = only(migration_problems(plan(DROP, contract="0003"), True, unknown))
        assert finding["why"].endswith("and the head of the version that runs is not known")
        assert finding["fix"].startswith("deploy the version that runs once more")

    def test_that_is_no_revision_is_no_plan(self) -> None:
        with pytest.raises(AnsibleFilterError, match="contract is 'x', not four digits"):
            migration_problems(plan(DROP, contract="x"))


@pytest.mark.parametrize("nothing", [plan(), plan(DROP, current=None)], ids=["at head", "first installation"])
def test_where_nothing_can_break_squawk_is_not_needed(
    nothing: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_squawk(monkeypatch, tmp_path)
    assert migration_problems(nothing) == []


def test_a_schema_that_has_moved_past_the_version_is_refused() -> None:
    assert migration_problems(plan(current="0009", oldest="0003")) == []
    finding = only(migration_problems(plan(current="0009", oldest="0005")))
    assert finding["what"] == "schema 0009"
    assert "past the version to be deployed, whose head is 0003" in finding["why"]
    assert "deploy a version whose head is 0005 or later" in finding["fix"]


class TestSquawk:
    """The program itself."""

    def test_missing_is_one_problem_with_the_way_out(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        without_squawk(monkeypatch, tmp_path)
        finding = only(migration_problems(plan(DROP, DROP)))
        assert finding["what"] == "squawk"
        assert "is neither in" in finding["why"]
        assert finding["fix"].startswith(f"pip install squawk-cli=={module.SQUAWK_VERSION}, ")

    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ("echo no such option >&2; exit 2", r"squawk \(exit code 2\) said: no such option"),
            ("exit 0", r"squawk \(exit code 0\) said: "),
        ],
    )
    def test_broken_is_a_problem_too(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, why: str
    ) -> None:
        without_squawk(monkeypatch, tmp_path)
        program = tmp_path / "squawk"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert re.search(why, only(migration_problems(plan(DROP)))["why"])

    def test_that_does_not_end_is_a_problem_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "squawk"
        program.write_text("#!/bin/sh\nexec sleep 30\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr(module, "_SECONDS", 0.2)
        assert "squawk does not run: " in only(migration_problems(plan(DROP)))["why"]

    def test_in_githubs_runners_it_says_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert only(migration_problems(plan(DROP)))["what"] == "schema revision 0004 (change)"

    def test_knows_our_rules(self, tmp_path: Path) -> None:
        """It refuses a name that is none of its rules."""
        (tmp_path / "drop.sql").write_text(DROP)
        program = str(Path(sys.executable).parent / "squawk")
        rules = ",".join(module.INCOMPATIBLE | module.DOUBTFUL)
        command = [program, f"--exclude={rules}", "--assume-in-transaction", str(tmp_path / "drop.sql")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert "ban-drop-column" not in done.stdout

    def test_is_told_of_every_rule_that_is_off_by_default(self) -> None:
        config = tomllib.loads(module.CONFIG.read_text())
        assert set(config["included_rules"]) <= module.DOUBTFUL
        assert not (module.INCOMPATIBLE | module.DOUBTFUL) & set(config["excluded_rules"])

    @pytest.mark.parametrize("lock", ["requirements.txt", "backend/requirements-dev.txt"])
    def test_is_pinned_alike(self, lock: str) -> None:
        assert f"\nsquawk-cli=={module.SQUAWK_VERSION} " in (ROOT / lock).read_text()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "a dict with current, head, oldest, pending; this is ''"),
        ({"current": "0003"}, "a dict with"),
        (plan(DROP, pending=[{"revision": "0004"}]), "a pending revision of the plan lacks contract, name, sql"),
    ],
    ids=["text", "too little", "half a revision"],
)
def test_what_is_no_plan_is_an_error(wrong: Any, why: str) -> None:
    with pytest.raises(AnsibleFilterError, match=why):
        migration_problems(wrong)
