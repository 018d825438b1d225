# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the teardown refuses, before it has even connected to a host."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_health
from forked import ansible
from rendering import evaluate

ROOT = Path(__file__).resolve().parents[2]


def teardown(folder: Path, **said: object) -> str:
    """Run the playbook against a host that does not exist; return its output."""
    # Nobody listens on this port: what is not refused ends as unreachable.
    host = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"docker_host": {"hosts": {"bot.example.com": host}}}))
    arguments = [part for name, value in said.items() for part in ("--extra-vars", f"{name}={value}")]
    done = ansible("ansible-playbook", "playbooks/teardown.yml", "--inventory", str(inventory), *arguments)
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


def carried_out(folder: Path, tasks: list[dict[str, Any]], docker: str, **variables: Any) -> list[str]:
    """Run tasks of the role here, with a made-up `docker`; return what that was asked for. They must not fail."""
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >> {folder}/asked\n{docker}\n')
    program.chmod(0o755)
    variables["ansible_python_interpreter"] = sys.executable
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    path = f"{program.parent}:{os.environ['PATH']}"
    done = ansible("ansible-playbook", str(folder / "play.yml"), "--inventory", "localhost,", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "asked").read_text().splitlines()


def role_tasks(name: str, *modules: str) -> list[dict[str, Any]]:
    """Return the tasks of a file of the role that use these modules."""
    tasks = yaml.safe_load((ROOT / "roles" / "docker_host" / "tasks" / name).read_text())
    return [task for task in tasks if set(modules) & set(task)]


def test_a_compose_file_that_cannot_be_read_does_not_stop_it(tmp_path: Path) -> None:
    tasks = role_tasks("teardown.yml", "community.docker.docker_compose_v2")
    there = {"containers": [{"Id": "0123456789ab", "Names": ["/tradingbot-redis-1"]}]}
    known = {"docker_host_project_dir": str(tmp_path / "gone"), "__docker_host_there": there}
    tasks.append({"ansible.builtin.command": "docker next"})
    assert carried_out(tmp_path, tasks, '[ "$1" = next ]', **known)[-1] == "next"


def test_the_journal_of_nginx_goes_with_its_log_and_its_bound() -> None:
    (ended, _, removed) = role_tasks(
        "teardown_journal.yml", "ansible.builtin.systemd_service", "ansible.builtin.find", "ansible.builtin.file"
    )
    asked = ended["ansible.builtin.systemd_service"]
    assert (asked["name"], asked["state"], asked["enabled"]) == (stack_health.NGINX_JOURNAL, "stopped", False)
    logs = ["/var/log/journal/0.tradingbot"]
    gone = evaluate("docker_host", removed["loop"].strip("{} "), logs=logs)
    assert gone == ["/etc/systemd/journald@tradingbot.conf", "/run/systemd/journal.tradingbot", *logs]


def test_pulled_images_go_by_their_names_in_the_registry(tmp_path: Path) -> None:
    releases = tmp_path / "backend" / "releases"
    releases.mkdir(parents=True)
    pulled = ["registry.example/bot:1", "registry.example/bot@sha256:0123", "registry.example/bot:gone"]
    for number, source in enumerate([*pulled, pulled[0]]):
        about = {"version": "1", "image": f"tradingbot-backend:{number}", "source": source}
        (releases / f"{number}.json").write_text(json.dumps(about, indent=2))
    (releases / "built.json").write_text('{"version": "1", "image": "tradingbot-backend:9"}')
    (releases / "broken.json").write_text("{")
    tasks = role_tasks("teardown_data.yml", "ansible.builtin.find", "ansible.builtin.slurp", "ansible.builtin.command")
    away = 'case "$3" in *gone) echo "Error response from daemon: No such image: $3" >&2; exit 1;; esac'
    asked = carried_out(tmp_path, tasks, away, docker_host_project_dir=str(tmp_path))
    assert sorted(asked) == sorted(f"image rm {name}" for name in pulled)


def folder_removed(tmp_path: Path, folder: str) -> None:
    """Carry out what the teardown does to the project's folder."""
    tasks = role_tasks("teardown_data.yml", "ansible.builtin.stat", "ansible.builtin.find", "ansible.builtin.file")
    tasks = [task for task in tasks if task.get("register") != "__docker_host_releases"]
    tasks.append({"ansible.builtin.command": "docker next"})
    known = yaml.safe_load((ROOT / "roles" / "docker_host" / "vars" / "main.yml").read_text())
    # Each takes a run of the module, also one that is not there.
    parts = [part for part in known["__docker_host_project_parts"] if Path(folder, part).exists()]
    carried_out(tmp_path, tasks, "", docker_host_project_dir=folder, __docker_host_project_parts=parts)


@pytest.mark.parametrize("end", ["", "/"])
def test_a_project_folder_that_is_a_link_goes_with_what_it_links_to(tmp_path: Path, end: str) -> None:
    place, link = tmp_path / "data" / "bot", tmp_path / "bot"
    (place / "secrets").mkdir(parents=True)
    (place / ".env").touch()
    link.symlink_to(place)
    folder_removed(tmp_path, f"{link}{end}")
    assert not place.exists()
    assert not link.is_symlink()
    assert place.parent.exists()


def test_what_others_keep_in_the_project_folder_stays(tmp_path: Path) -> None:
    place, link = tmp_path / "data", tmp_path / "bot"
    for name in ("secrets", "backend/releases", "logs", "backups", ".other"):
        (place / name).mkdir(parents=True)
    link.symlink_to(place)
    folder_removed(tmp_path, str(link))
    assert sorted(path.name for path in place.iterdir()) == [".other", "backups"]
    assert link.is_symlink()


def test_folders_of_other_units_go_only_when_they_are_empty(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "nftables.service.d", tmp_path / "netfilter-persistent.service.d"
    mine.mkdir()
    theirs.mkdir()
    (theirs / "other.conf").touch()
    tasks = role_tasks("teardown.yml", "ansible.builtin.find", "ansible.builtin.file")
    # The first one removes files by their full paths on the host.
    removed = tasks.pop(0)
    assert "/etc/systemd/system/tradingbot-rules.service" in removed["loop"]
    tasks.append({"ansible.builtin.command": "docker next"})
    folders = [str(mine), str(theirs), str(tmp_path / "absent.service.d")]
    carried_out(tmp_path, tasks, "", __docker_host_drop_ins=folders)
    assert not mine.exists()
    assert (theirs / "other.conf").exists()


def test_failures_of_units_that_are_gone_are_forgotten() -> None:
    tasks = role_tasks("teardown.yml", "ansible.builtin.systemd_service", "ansible.builtin.command")
    reload, reset = tasks[-2:]
    assert reload["ansible.builtin.systemd_service"] == {"daemon_reload": True}
    assert reset["ansible.builtin.command"]["argv"] == ["systemctl", "reset-failed", "tradingbot-*"]
    assert reset["changed_when"] is False
