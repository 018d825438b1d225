"""What the refusals share: a look at the whole host, and a run of site.yml that must end in preflight."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.stack.host import output_of
from tests.stack.plays import ROOT
from tests.testbed import hosts

LOOK = (Path(__file__).parent / "snapshot_host.py").read_text()
PREFLIGHT = {
    "Refuse what is not filled in, before the first connection",
    "Refuse what cannot go well on the host, before anything changes",
}
FINDING = re.compile(r"^ *\d+\. (?P<what>[^:\n]+): (?P<why>.+)\n +Way out: (?P<fix>.+)$", re.MULTILINE)

Finding = tuple[str, str, str]


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> Path:
    """The inventory that Molecule made, with its secrets: those are made when they are first asked for."""
    path = Path(request.config.getoption("ansible_inventory"))
    asked = "query('vars', *query('varnames', '^vault_')) | join | length > 256"
    arguments = ["-m", "ansible.builtin.assert", "-a", json.dumps({"that": asked})]
    subprocess.run(
        ["ansible", "refusals", "-i", str(path), *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return path


@pytest.fixture(scope="session")
def machine() -> hosts.Host:
    """How this machine reaches the host under test."""
    return hosts.describe("refusals")


@pytest.fixture(scope="session")
def on_host(machine: hosts.Host) -> Callable[..., str]:
    """Runs a command on the host as root, with a text as its input, and gives what it printed."""
    return partial(output_of, machine, seconds=120)


@pytest.fixture(scope="session")
def changes(on_host: Callable[..., str]) -> Callable[[], Callable[[], list[str]]]:
    """Looks at the host; calling what this gives looks again and names all that is different."""

    def look() -> dict[str, str]:
        seen: dict[str, str] = json.loads(on_host("python3 -I -B -", LOOK))
        return seen

    def begin() -> Callable[[], list[str]]:
        before = look()

        def end() -> list[str]:
            after = look()
            return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))

        return end

    return begin


@pytest.fixture(scope="session")
def site(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs site.yml with extra variables as a person would, with all that Ansible can say about its tasks."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}

    def run(
        variables: dict[str, Any] | None = None, *options: str, at: Path = inventory
    ) -> subprocess.CompletedProcess[str]:
        given = tmp_path_factory.mktemp("run") / "variables.json"
        given.write_text(json.dumps(variables or {}))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "site.yml", "-vvv", "--diff"]
        return subprocess.run(
            [*command, "--inventory", str(at), "--extra-vars", f"@{given}", *options],
            cwd=ROOT,
            env={**plain, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "2000"},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def refuses(
    site: Callable[..., subprocess.CompletedProcess[str]],
    changes: Callable[[], Callable[[], list[str]]],
    inventory: Path,
) -> Callable[..., str]:
    """Requires that a run ends in preflight with exactly these findings, tells no secret and changes nothing.

    A finding is what it names, and patterns of the reason and of the way out. Gives what the run printed.
    """

    def check(
        expected: list[Finding], variables: dict[str, Any] | None = None, *options: str, at: Path = inventory
    ) -> str:
        changed = changes()
        done = site(variables, *options, at=at)
        printed = done.stdout + done.stderr
        assert changed() == []

        said = done.stdout.rpartition("FAILED! =>")[2]
        assert done.returncode == 2, printed
        assert set(re.findall(r"^PLAY \[(.*?)\]", done.stdout, re.MULTILINE)) <= PREFLIGHT
        assert re.search(r" changed=0 .* failed=1 ", done.stdout), said
        assert f"{len(expected)} problem{'s' * (len(expected) != 1)} found; nothing has been changed." in said

        found = [(match["what"], match["why"], match["fix"]) for match in FINDING.finditer(said)]
        assert sorted(what for what, _, _ in found) == sorted(what for what, _, _ in expected), said
        for what, why, fix in expected:
            assert any(what == w and re.search(why, y) and re.search(fix, f) for w, y, f in found), (what, found)

        secrets = {path.name: path.read_text().split()[0] for path in (inventory / ".secrets").iterdir()}
        secrets |= {name: str(value) for name, value in (variables or {}).items() if name.startswith("vault_")}
        assert len(secrets) >= 8
        assert [name for name, value in secrets.items() if value and value in printed] == []
        return printed

    return check
