"""The deploy lock: one holder, named to others; a dead run does not keep it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase
from ansible_collections.tradingbot.stack.plugins.action import deploy_lock as action
from ansible_collections.tradingbot.stack.plugins.modules import deploy_lock as module

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_800_000_000.0
ALICE = {"id": "laptop:1:5", "who": "alice@laptop", "controller": "laptop", "pid": 1, "started": "5"}
BOB = {"id": "desk:2:6", "who": "bob@desk", "controller": "desk", "pid": 2, "started": "6"}


def asked(**changed: Any) -> dict[str, Any]:
    return {"holder": BOB, "take_over": False, "break_id": ""} | changed


def held(minutes: float = 1) -> dict[str, Any]:
    return ALICE | {"since": NOW - 60 * minutes, "valid_seconds": 3600, "purpose": "release 0.3.0"}


def test_a_free_lock_is_taken() -> None:
    assert module.decide(None, asked(), NOW) == {"held": True}


def test_the_same_run_takes_it_again() -> None:
    assert module.decide(held(), asked(holder=ALICE), NOW) == {"held": True}


def test_somebody_elses_lock_is_not_taken() -> None:
    assert module.decide(held(), asked(), NOW) == {"held": False, "holder": held()}


@pytest.mark.parametrize(
    ("holder", "changed"),
    [(held(61), {}), (held(), {"take_over": True}), (held(), {"break_id": ALICE["id"]})],
    ids=["expired", "told to", "known to be dead"],
)
def test_a_lock_that_nobody_needs_is_taken_over(holder: dict[str, Any], changed: dict[str, Any]) -> None:
    assert module.decide(holder, asked(**changed), NOW) == {"held": True, "took_over": holder}


def test_another_run_than_the_dead_one_is_not_broken() -> None:
    assert not module.decide(held(), asked(break_id="laptop:1:4"), NOW)["held"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"who": "x"}'])
def test_what_names_no_holder_is_a_free_lock(text: str) -> None:
    assert module.read(text) is None


def test_a_process_is_told_from_a_later_one_of_the_same_number() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = action.started(process.pid)
        assert began
        assert began == action.started(process.pid)
        process.kill()
        until = time.monotonic() + 10
        while action.started(process.pid) is not None:  # a zombie until it is waited for
            assert time.monotonic() < until
            time.sleep(0.01)
    assert action.started(process.pid) is None


def test_a_run_is_dead_when_its_process_is_gone_or_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "this_machine", lambda: "here")
    alive = {"controller": "here", "pid": os.getpid(), "started": action.started(os.getpid())}
    assert not action.is_dead(alive)
    assert action.is_dead(alive | {"started": "1"})
    assert action.is_dead(alive | {"pid": 2**22 + 1})
    assert not action.is_dead(alive | {"started": ""}), "it may be the same"
    assert not action.is_dead(alive | {"controller": "elsewhere", "pid": 2**22 + 1}), "that cannot be seen from here"


def ask(path: Path, capsys: pytest.CaptureFixture[str], check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Return what the module says of the lock in *path*."""
    said: dict[str, Any] = {"holder": BOB, "_ansible_check_mode": check}
    with pytest.MonkeyPatch.context() as patch, patch_module_args(said | arguments):
        patch.setattr(module, "PATH", path)
        with pytest.raises(SystemExit):
            module.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_lock_is_held_until_it_is_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run" / "deploy.lock"
    first = ask(path, capsys)
    assert (first["held"], first["taken"]) == (True, True)
    second = ask(path, capsys)
    assert (second["held"], second["taken"]) == (True, False), "who held it before gives it back"
    assert json.loads(path.read_text())["since"] > first["now"], "its time begins again"
    other = ask(path, capsys, holder=ALICE)
    assert (other["held"], other["taken"], other["holder"]["who"]) == (False, False, "bob@desk")
    assert not ask(path, capsys, state="released")["held"]
    assert ask(path, capsys, holder=ALICE)["taken"]


def test_a_dry_run_takes_no_lock_and_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run" / "deploy.lock"
    assert ask(path, capsys, check=True)["held"]
    assert not path.parent.exists()
    ask(path, capsys, holder=ALICE)
    before = path.read_text()
    assert not ask(path, capsys, check=True)["held"], "what it would tell of a host that changes is not true later"
    ask(path, capsys, check=True, holder=ALICE, state="released")
    assert path.read_text() == before


def test_site_holds_the_lock_around_all_roles() -> None:
    (play,) = [play for play in yaml.safe_load((ROOT / "playbooks/site.yml").read_text()) if "tasks" in play]
    hold, change = play["tasks"]
    roles = [task["ansible.builtin.import_role"]["name"].removeprefix("tradingbot.stack.") for task in change["block"]]
    assert hold["tradingbot.stack.deploy_lock"].get("state", "held") == "held"
    (release,) = change["always"]
    assert release["tradingbot.stack.deploy_lock"] == {"state": "released"}
    assert roles == [task["tags"][0] for task in change["block"]]
    # Whatever of it runs or is skipped; a look at the host's health waits for nobody.
    assert hold["tags"] == release["tags"] == ["always"]
    assert hold["when"] == release["when"] == "ansible_run_tags | difference(['health']) | length > 0"
    assert [task["when"] for task in change["block"]] == [f"'{role}' in group_names" for role in roles]


@pytest.mark.parametrize("tasks", ["main", "restart", "rollback"])
def test_a_part_gives_back_only_what_it_took(tasks: str) -> None:
    found = yaml.safe_load((ROOT / f"roles/backend/tasks/{tasks}.yml").read_text())
    (release,) = [task["always"][0] for task in found if "always" in task]
    assert release["when"] == "__backend_lock.taken"


class Play:
    """The action as a task runs it, with answers of a made-up module."""

    def __init__(self, answers: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self.slept = 0.0
        self._answers = answers
        self._action = action.ActionModule.__new__(action.ActionModule)
        self._action._task = type("Task", (), {"args": arguments, "check_mode": False})()
        monkeypatch.setattr(ActionBase, "run", lambda *_: {})
        monkeypatch.setattr(self._action, "_execute_module", self._module, raising=False)
        monkeypatch.setattr(time, "sleep", self._sleep)
        monkeypatch.setattr(time, "monotonic", lambda: self.slept)

    def _module(self, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        self.asked.append(dict(module_args))
        return self._answers.pop(0) | {"now": NOW}

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds

    def run(self) -> dict[str, Any]:
        return self._action.run(task_vars={})


def test_a_held_lock_is_refused_with_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play([{"held": False, "holder": held(12)}], monkeypatch)
    with pytest.raises(AnsibleActionFail) as refusal:
        play.run()
    said = str(refusal.value)
    assert "alice@laptop since 2027-01-15 07:48:00 UTC (12 min; process 1), for: release 0.3.0" in said
    assert "backend_deploy_wait" in said
    assert "backend_deploy_take_over" in said


def test_a_held_lock_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play([{"held": False, "holder": held()}] * 3 + [{"held": True}], monkeypatch, wait_seconds=60)
    assert play.run()["held"]
    assert play.slept == 3 * action.POLL_SECONDS


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play([{"held": False, "holder": held()}] * 40, monkeypatch, wait_seconds=60)
    with pytest.raises(AnsibleActionFail, match="held by alice@laptop"):
        play.run()
    assert play.slept == 60


def test_the_lock_of_a_dead_run_is_broken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = held() | {"controller": action.this_machine(), "pid": 2**22 + 1, "id": "dead"}
    play = Play([{"held": False, "holder": dead}, {"held": True, "took_over": dead}], monkeypatch)
    assert play.run()["held"]
    assert play.asked[1]["break_id"] == "dead"
    assert play.slept == 0
