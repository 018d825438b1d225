# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The playbooks rely on nothing that a user's settings or root's PATH may lack, and say why they do not get in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import ansible

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def plays(path: Path) -> list[dict[str, Any]]:
    return [play for play in yaml.safe_load(path.read_text()) if "hosts" in play]


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_play_says_whether_it_gathers_facts(path: Path) -> None:
    """With `gathering = explicit` in the user's ansible.cfg a play that says nothing has none."""
    assert [play["name"] for play in plays(path) if "gather_facts" not in play] == []


def test_the_deploy_gathers_the_facts_that_sizes_are_derived_from() -> None:
    (deploy,) = [play for play in plays(ROOT / "playbooks" / "deploy.yml") if "roles" in play]
    assert deploy["gather_facts"] is True
    assert "hardware" in deploy["gather_subset"]


def walked(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a file of tasks or plays."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walked(item)
    elif isinstance(value, list):
        for item in value:
            yield from walked(item)


def test_programs_are_named_by_their_full_paths() -> None:
    """Root's PATH may lack /usr/local/bin (sudo's secure_path on Debian forky) and /usr/sbin (su without a login)."""
    found: dict[str, str] = {}
    for path in [*(ROOT / "roles").glob("*/tasks/*.yml"), *PLAYBOOKS]:
        for task in walked(yaml.safe_load(path.read_text())):
            told = task.get("ansible.builtin.command") or {}
            words = told.get("argv") or str(told.get("cmd", "")).split()
            programs = [words if isinstance(words, str) else words[0]] if words else []
            validate = task.get("validate", {})
            programs += [text.split()[0] for text in (validate.values() if isinstance(validate, dict) else [validate])]
            found |= {program: path.name for program in programs if not program.startswith(("/", "{{ ['/"))}
    # In /usr/bin or /bin, which every PATH has.
    assert set(found) <= {"docker", "env", "gpg", "sh", "systemctl"}, found


SUDO = "#!/bin/sh\necho '{said}' >&2\nexit 1\n"
TTY, PASSWORD = "sudo: sorry, you must have a tty to run sudo", "sudo: a password is required"


def preflight(folder: Path, **host: Any) -> str:
    """Run the look at the host against this machine, which must not get far; return what was said."""
    play = plays(ROOT / "playbooks" / "preflight.yml")[1]
    (folder / "look.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_user": "deploy"}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"redis": {"hosts": {"here": here | host}}}))
    done = ansible("ansible-playbook", str(folder / "look.yml"), "-i", str(folder / "hosts.yml"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "tradingbot.stack.redis" not in done.stdout
    return " ".join(done.stdout.rpartition("FAILED! =>")[2].split())


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (TTY, "set `ansible_pipelining: false` for this host; or, on it, `echo 'Defaults:deploy !requiretty'"),
        (PASSWORD, "pass `--ask-become-pass`; or let deploy run `sudo -n true` on the host"),
        ("sudo: the dog ate it", "let deploy run `sudo -n /usr/bin/python3 --version` on the host"),
    ],
)
def test_a_host_that_lets_nobody_become_root(tmp_path: Path, said: str, fix: str) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text(SUDO.format(said=said))
    sudo.chmod(0o755)
    text = preflight(tmp_path, ansible_become_exe=str(sudo))
    assert "1 problem found; nothing has been changed." in text
    assert "root on the host: " in text
    assert said in text
    assert fix in text.replace("''", "'")


def test_a_host_without_the_interpreter(tmp_path: Path) -> None:
    text = preflight(tmp_path, ansible_become=False, ansible_python_interpreter="/nowhere/python3")
    assert "The module interpreter '/nowhere/python3' was not found" in text.replace("''", "'")
    assert "or set `ansible_python_interpreter` to its Python" in text


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    play = tmp_path / "old.yml"
    (refuse,) = [
        task
        for task in plays(ROOT / "playbooks" / "preflight.yml")[1]["tasks"]
        if task["name"] == "Refuse a Python that modules do not run on"
    ]
    for version, code in (("3.9.18", 2), ("3.10.4", 0)):
        look = {"hosts": "localhost", "gather_facts": False, "vars": {"ansible_facts": {"python_version": version}}}
        play.write_text(yaml.safe_dump([look | {"tasks": [refuse]}], sort_keys=False))
        done = ansible("ansible-playbook", str(play), "-i", "localhost,", "-c", "local")
        assert done.returncode == code, done.stdout
        assert ("this is Python 3.9.18, and the modules need 3.10" in " ".join(done.stdout.split())) is (code == 2)
