# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that judges what a deploy would do to the schema."""

from __future__ import annotations

DOCUMENTATION = r"""
name: migration_problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.3.0
short_description: Preflight findings about the migrations of a version
description:
  - Lints the SQL of the revisions that a version would run, with C(squawk) on the controller.
  - Refuses what the version that runs cannot live with (drop, rename, change of type, NOT NULL without a default and
    the like), unless the revision says C(contract), O(allow_contract) is set, and O(running_head) is late enough.
  - Refuses what blocks reads or writes, unless the revision says why it does no harm (its C(lint_exceptions)).
  - Says nothing about an empty database, which nothing runs on, and where no revision is pending; then C(squawk) is not
    needed either.
requirements:
  - squawk-cli (PyPI), on the controller, if revisions are pending
options:
  _input:
    description: What C(tradingbot migrate --plan) of the version to be deployed prints.
    type: dict
    required: true
  allow_contract:
    description: Whether revisions may take away what earlier versions need.
    type: bool
    default: false
  running_head:
    description: Newest revision that the running version knows, four digits; none if that is not known.
    type: str
"""

EXAMPLES = r"""
- name: Refuse migrations that the running version cannot live with
  ansible.builtin.fail:
    msg: "{{ plan | tradingbot.stack.migration_problems(running_head='0003') | tradingbot.stack.problems }}"
  when: plan | tradingbot.stack.migration_problems(running_head='0003') | length > 0
  vars:
    plan: "{{ printed.stdout | from_json }}"
"""

RETURN = r"""
_value:
  description: Findings with C(what), C(why) and C(fix).
  type: list
  elements: dict
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

# That of requirements.txt; another one may know other rules.
SQUAWK_VERSION = "2.70.0"
# The tests of the backend lint with the same file.
CONFIG = Path(__file__).resolve().parents[2] / "backend" / "squawk.toml"
# What a version that knows the schema from before falls over: only a contracting revision may do it, and no comment in
# its SQL makes it harmless.
INCOMPATIBLE = frozenset(
    {
        "adding-not-nullable-field",
        "adding-required-field",
        "ban-alter-generated-expression",
        "ban-alter-identity",
        "ban-detach-inheritance",
        "ban-drop-column",
        "ban-drop-database",
        "ban-drop-default",
        "ban-drop-domain",
        "ban-drop-extension",
        "ban-drop-function",
        "ban-drop-generated-expression",
        "ban-drop-not-null",
        "ban-drop-schema",
        "ban-drop-sequence",
        "ban-drop-table",
        "ban-drop-type",
        "ban-drop-view",
        "ban-set-schema",
        "ban-truncate-cascade",
        "changing-column-type",
        "renaming-column",
        "renaming-object",
        "renaming-table",
    }
)
# What it may fall over: a contracting revision may do it, and another one that says why it does no harm.
DOUBTFUL = frozenset(
    {
        "ban-add-enum-value",
        "ban-alter-row-level-security",
        "ban-drop-constraint",
        "ban-drop-index",
        "ban-new-write-restriction",
        "ban-replace-view-function",
        "ban-revoke",
        "ban-set-default",
    }
)
_SECONDS = 60
_NUMBER = re.compile(r"\d{4}")
_IGNORE = re.compile("squawk-ignore", re.IGNORECASE)
_PAGE = "docs/migrations.md"

Finding = dict[str, str]


class _SquawkError(Exception):
    """The linter did not do its work; the message says why."""


def migration_problems(
    plan: Mapping[str, Any], allow_contract: bool | str = False, running_head: str | None = None
) -> list[Finding]:
    """Return what speaks against the migrations of *plan*, as preflight findings.

    Raises AnsibleFilterError when *plan* is none.
    """
    _check(plan)
    if plan["current"] is None:
        return []
    found = list(_moved_past(plan))
    contracts = {
        revision["revision"]: list(_contract(revision, boolean(allow_contract), running_head))
        for revision in plan["pending"]
        if revision["contract"] is not None
    }
    found += [problem for problems in contracts.values() for problem in problems]
    try:
        linted = _lint([revision["sql"] for revision in plan["pending"]])
    except _SquawkError as error:
        fix = f"pip install squawk-cli=={SQUAWK_VERSION}, into the environment that runs ansible-playbook"
        return [*found, {"what": "squawk", "why": f"migrations are pending, and {error}", "fix": fix}]
    for revision, violations in zip(plan["pending"], linted, strict=True):
        # A contracting revision is allowed or refused as a whole, above.
        skipped = INCOMPATIBLE | DOUBTFUL if revision["revision"] in contracts else frozenset()
        found += [_finding(revision, violation) for violation in violations if violation["rule"] not in skipped]
    return found


def _check(plan: Any) -> None:
    keys = {"current", "head", "oldest", "pending"}
    if not isinstance(plan, Mapping) or keys - set(plan):
        raise AnsibleFilterError(
            f"migration_problems wants what `tradingbot migrate --plan` prints, a dict with {', '.join(sorted(keys))};"
            f" this is {str(plan)[:200]!r}"
        )
    for revision in plan["pending"]:
        missing = {"revision", "name", "contract", "sql"} - set(revision)
        if missing:
            raise AnsibleFilterError(f"a pending revision of the plan lacks {', '.join(sorted(missing))}: {revision}")


def _title(revision: Mapping[str, Any]) -> str:
    return f"schema revision {revision['revision']} ({revision['name']})"


def _moved_past(plan: Mapping[str, Any]) -> Iterator[Finding]:
    needed = plan["oldest"] or plan["current"]
    if needed > plan["head"]:
        yield {
            "what": f"schema {plan['current']}",
            "why": f"it has moved past the version to be deployed, whose head is {plan['head']}",
            "fix": f"deploy a version whose head is {needed} or later, or restore a backup from before ({_PAGE})",
        }


def _contract(revision: Mapping[str, Any], allowed: bool, running_head: str | None) -> Iterator[Finding]:
    contract = revision["contract"]
    needs = f"it contracts the schema: only versions whose head is {contract} or later can live with it"
    again = "-e backend_allow_contract=true"
    if not _NUMBER.fullmatch(str(contract)):
        raise AnsibleFilterError(f"{_title(revision)}: contract is {contract!r}, not four digits")
    if not allowed:
        yield {
            "what": _title(revision),
            "why": f"{needs}; going back to an earlier one will not be possible",
            "fix": f"once the version that expands the schema runs everywhere, deploy with {again} ({_PAGE})",
        }
    elif not running_head:
        yield {
            "what": _title(revision),
            "why": f"{needs}, and the head of the version that runs is not known",
            "fix": f"deploy the version that runs once more, then this one with {again} ({_PAGE})",
        }
    elif running_head < contract:
        yield {
            "what": _title(revision),
            "why": f"{needs}, and the head of the version that runs is {running_head}",
            "fix": f"first deploy a version whose head is at least {contract} and before {revision['revision']},"
            f" then this one with {again} ({_PAGE})",
        }


def _finding(revision: Mapping[str, Any], violation: dict[str, str]) -> Finding:
    where = f"line {violation['line']}, `{violation['text']}`"
    if violation["rule"] in INCOMPATIBLE:
        why = f"{where}: {violation['message']} The version that runs still uses it ({violation['rule']})."
        fix = (
            "do it in two releases: one that expands the schema and needs no longer what is taken away, then a revision"
            f' that says which head that is: contract = "…" ({_PAGE})'
        )
    else:
        why = f"{where}: {violation['message']} ({violation['rule']})"
        fix = (
            f"{violation['help'] or 'write it in another way'}; where it does no harm, name {violation['rule']} and the"
            f" reason in the revision's lint_exceptions ({_PAGE})"
        )
    return {"what": _title(revision), "why": why, "fix": fix}


def _lint(scripts: Sequence[str]) -> list[list[dict[str, str]]]:
    """Return for each script what the linter finds, in the order of the lines."""
    if not scripts:
        return []
    with tempfile.TemporaryDirectory(prefix="tradingbot-migrations-") as folder:
        files = {}
        for number, script in enumerate(scripts):
            for kind, text in (("as-written", script), ("bare", _IGNORE.sub("squawk-passes", script))):
                files[f"{number}-{kind}.sql"] = number, kind, text.splitlines()
                (Path(folder) / f"{number}-{kind}.sql").write_text(text, encoding="utf-8")
        found: list[list[dict[str, str]]] = [[] for _ in scripts]
        for one in _squawk(folder, sorted(files)):
            number, kind, lines = files[one["file"]]
            # Comments that ignore a rule count for all but what is incompatible.
            if (one["rule_name"] in INCOMPATIBLE) == (kind == "bare") and not _is_not_null(one, lines):
                found[number].append(
                    {
                        "rule": one["rule_name"],
                        "line": str(one["line"] + 1),
                        "text": _shown(lines, one["line"]),
                        "message": one["message"],
                        "help": (one["help"] or "").rstrip("."),
                    }
                )
    return [sorted(violations, key=lambda one: int(one["line"])) for violations in found]


def _is_not_null(finding: Mapping[str, Any], lines: Sequence[str]) -> bool:
    """Whether it repeats what rules about NOT NULL say: of a new column with a default it harms nobody."""
    marked = lines[finding["line"]][finding["column"] : finding["column_end"]] if finding["line"] < len(lines) else ""
    return bool(finding["rule_name"] == "ban-new-write-restriction" and marked.endswith("NOT NULL"))


def _shown(lines: Sequence[str], line: int) -> str:
    text = lines[line].strip() if line < len(lines) else ""
    return text if len(text) <= 120 else f"{text[:119]}…"


def _squawk(folder: str, files: Sequence[str]) -> list[dict[str, Any]]:
    beside = Path(sys.executable).parent
    program = shutil.which("squawk", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    if program is None:
        raise _SquawkError(f"squawk, which lints them, is neither in {beside} nor on PATH")
    command = [program, "--config", str(CONFIG), "--reporter", "json", *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=_SECONDS, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _SquawkError(f"{program} does not run: {error}") from None
    except ValueError:
        said = (done.stderr or done.stdout).strip()[:500]
        raise _SquawkError(f"{program} (exit code {done.returncode}) said: {said}") from None
    return found


class FilterModule:
    """Filters of tradingbot.stack for migrations."""

    def filters(self) -> dict[str, object]:
        return {"migration_problems": migration_problems}
