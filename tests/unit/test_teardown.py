# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the teardown refuses, before it has even connected to a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def teardown(folder: Path, **said: object) -> str:
    """Run the playbook against a host that does not exist; return its output."""
    # Nobody listens on this port: what is not refused ends as unreachable.
    host = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"docker_host": {"hosts": {"bot.example.com": host}}}))
    arguments = [part for name, value in said.items() for part in ("--extra-vars", f"{name}={value}")]
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "playbooks/teardown.yml", "--inventory", str(inventory), *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"teardown_data": "true"}, "the data of bot.example.com would be gone for good, and `` is not its name"),
        ({"teardown_data": "true", "teardown_confirm": "bot"}, "and `bot` is not its name"),
        ({"teardown_confirm": "bot.example.com"}, "is confirmed, but it is not said that its data is meant"),
        ({"teardown_data": "yes"}, "`yes` is neither true nor false"),
    ],
)
def test_what_is_half_said_is_refused(tmp_path: Path, said: dict[str, str], why: str) -> None:
    output = teardown(tmp_path, **said)
    assert why in output
    assert "-e teardown_data=true -e teardown_confirm=bot.example.com" in output
    assert "unreachable=0" in output


@pytest.mark.parametrize("said", [{}, {"teardown_data": "true", "teardown_confirm": "bot.example.com"}])
def test_what_is_said_as_a_whole_goes_on(tmp_path: Path, said: dict[str, str]) -> None:
    output = teardown(tmp_path, **said)
    assert "unreachable=1" in output
    assert "Way out" not in output


def test_data_goes_only_when_it_is_meant() -> None:
    folder = ROOT / "roles" / "docker_host" / "tasks"
    tasks = yaml.safe_load((folder / "teardown.yml").read_text())
    (data,) = [task for task in tasks if "teardown_data.yml" in str(task.get("ansible.builtin.include_tasks"))]
    assert data["when"] == "__docker_host_teardown_data"
    others = str([task for task in tasks if task is not data and "ansible.builtin.debug" not in task])
    for kept in ("docker_volume", "docker_image", "remove_volumes", "remove_images", "/opt/tradingbot"):
        assert kept not in others
