"""The slots module as a process: what it refuses, what it only looks at, and that a change outlives its caller."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingbot.stack.plugins.module_utils import (
    host_change,
    nginx_engine,
    slots_engine,
    stack_services,
    target,
)
from ansible_collections.tradingbot.stack.plugins.module_utils import slots_record as records
from ansible_collections.tradingbot.stack.plugins.modules import backend_slots
from forked import module

SLOTS = {"blue": "127.0.0.1", "green": "127.0.0.2"}


def call(folder: Path, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does, as this user."""
    internal = {"_ansible_check_mode": check, "_ansible_remote_tmp": str(folder)}
    given = {"project_dir": str(folder), "slots": SLOTS} | arguments | internal
    done = module(backend_slots.__file__, json.dumps({"ANSIBLE_MODULE_ARGS": given}))
    return dict(json.loads(done.stdout))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backend" / "releases").mkdir(parents=True)
    return tmp_path


def test_two_slots_publish_nothing(folder: Path) -> None:
    refused = call(folder, publish=["127.0.0.1:8001:8001"])
    assert refused["failed"]
    assert "leave publish empty, or give one slot" in refused["msg"]


def test_a_look_at_an_empty_host_finds_nothing(folder: Path) -> None:
    found = call(folder, state="looked")
    assert (found["active"], found["release"], found["ready"], found["settled"]) == (None, None, False, True)
    assert found["memory_available_mb"] > 0
    assert found["disk_free_mb"] > 0
    assert not found["changed"]


def test_a_dry_run_says_what_would_change_and_what_cannot_be(folder: Path) -> None:
    layout = records.Layout(folder, SLOTS)
    for number, release in enumerate(("1.0-a", "1.1-b")):
        about = {"version": release[:3], "image": release, "secrets": [], "used": float(number)}
        records.write_release(layout, release, about)
    records.write_record(layout, records.Record("blue", {"blue": "1.1-b", "green": None}, "1.1-b"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert call(folder, check=True, release="2.0-c")["changed"]
    assert not call(folder, check=True, release="1.1-b")["changed"]
    assert call(folder, check=True, state="restarted")["changed"]
    assert "no release 9 is kept" in call(folder, check=True, state="previous", release="9")["msg"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("state", ["present", "restarted", "previous"])
def test_a_dry_run_refuses_where_nothing_runs(folder: Path, state: str) -> None:
    refused = call(folder, check=True, state=state)
    assert refused["failed"]
    assert "none runs" in refused["msg"] or "no release to go back to" in refused["msg"]


@pytest.mark.parametrize(
    ("head", "oldest", "refusal"),
    [
        ("0003", "0003", ""),
        ("0003", None, ""),
        ("0003", "0004", "the database has been contracted since"),
        (None, "0003", "it is not known which schema 1.0-a needs"),
    ],
)
def test_a_dry_run_of_a_rollback_asks_the_schema(
    folder: Path, monkeypatch: pytest.MonkeyPatch, head: str | None, oldest: str | None, refusal: str
) -> None:
    layout = records.Layout(folder, SLOTS)
    for number, release in enumerate(("1.0-a", "1.1-b")):
        about = {"version": release[:3], "image": release, "secrets": [], "used": number, "schema_head": head}
        records.write_release(layout, release, about)
    records.write_record(layout, records.Record("blue", {"blue": "1.1-b", "green": None}, "1.1-b"))
    monkeypatch.setattr(slots_engine.Engine, "oldest_schema_user", lambda _engine, _release: oldest)
    asked = {"state": "previous", "release": "", "keep": 5}
    asked |= {"ready_timeout": 1, "settle_seconds": 1, "drain_timeout": 1}
    if refusal:
        with pytest.raises(records.SlotError, match=refusal):
            backend_slots.foretold(asked, layout)
    else:
        assert backend_slots.foretold(asked, layout)["changed"]


@pytest.mark.parametrize(
    ("info", "roots"),
    [
        (None, ["/var/lib/docker"]),
        ({"DockerRootDir": "/data/docker", "DriverStatus": [["Backing Filesystem", "extfs"]]}, ["/data/docker"]),
        (
            {"DockerRootDir": "/data/docker", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]},
            ["/data/docker", "/var/lib/containerd"],
        ),
    ],
)
def test_room_is_looked_for_where_the_engine_keeps_its_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any] | None, roots: list[str]
) -> None:
    free = {root: 17 + number for number, root in enumerate(reversed(roots))}
    monkeypatch.setattr(target, "docker_get", lambda resource, *_, **__: info if resource == "/info" else None)
    monkeypatch.setattr(backend_slots, "free_mb", free.pop)
    assert backend_slots.looked(records.Layout(folder, SLOTS))["disk_free_mb"] == 17
    assert free == {}


def test_a_failure_before_the_slots_is_logged_and_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_change, "RUN_DIR", folder / "run")
    asked = {"state": "failed", "release": "9.9", "reason": "no such image", "who": "tests", "about": {}, "keep": 5}
    asked |= {"ready_timeout": 1, "settle_seconds": 1, "drain_timeout": 1}
    layout = records.Layout(folder, SLOTS)
    answer = host_change.on_its_own(lambda: backend_slots.change(asked, layout))
    assert (answer["failed"], answer["msg"]) == (True, "no such image")
    logged = json.loads(layout.log_file.read_text())
    assert (logged["to"], logged["result"], logged["reason"], logged["who"]) == (
        "9.9",
        "failed",
        "no such image",
        "tests",
    )
    assert layout.log_file.stat().st_mode & 0o777 == 0o600


class TestSecondNginx:
    """An interrupted replacement of nginx has left a second one, and the definition on disk starts none."""

    @pytest.fixture(autouse=True)
    def host(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / ".env").write_text("COMPOSE_PROJECT_NAME=tradingbot\n")
        self.layout = records.Layout(folder, SLOTS)
        about = {"version": "1.0", "image": "1.0-a", "secrets": []}
        records.write_release(self.layout, "1.0-a", about)
        records.write_record(self.layout, records.Record("blue", {"blue": "1.0-a", "green": None}, "1.0-a"))
        self.layout.upstream_file.parent.mkdir(parents=True)
        self.layout.upstream_file.write_text(slots_engine.upstream_text("blue"))
        self.containers = [self.nginx("1"), self.nginx("second", one_off=True)]
        self.ran: list[list[str]] = []
        self.refuses: set[str] = set()
        monkeypatch.setattr(host_change, "RUN_DIR", folder / "run")
        monkeypatch.setattr(target, "docker_get", self.get)
        monkeypatch.setattr(subprocess, "run", self.run)

    @staticmethod
    def nginx(name: str, one_off: bool = False, running: bool = True) -> dict[str, Any]:
        told = {"project": "tradingbot", "service": "nginx", "oneoff": str(one_off)}
        labels = {f"com.docker.compose.{key}": value for key, value in told.items()}
        state = {"Running": running, "Pid": 7}
        return {"Id": name, "Name": f"/tradingbot-nginx-{name}", "State": state, "Config": {"Labels": labels}}

    def get(self, resource: str, *_: Any, **__: Any) -> Any:
        if resource.startswith("/containers/json"):
            return self.containers
        return next((one for one in self.containers if one["Id"] == resource.split("/")[2]), None)

    def run(self, command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        self.ran.append(list(command))
        return subprocess.CompletedProcess(command, int(command[2] in self.refuses), "", "it says no")

    def test_what_does_not_change_the_slot_touches_no_nginx(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(_: Any) -> None:
            raise host_change.ChangeError("cannot assign requested address")

        for name, answer in (("leads_to_second", True), ("has_second", True), ("lead_back", None)):
            monkeypatch.setattr(nginx_engine.Engine, name, lambda _, told=answer: told)
        monkeypatch.setattr(nginx_engine.Engine, "serves", lambda _, which: which == "second")
        monkeypatch.setattr(nginx_engine.Engine, "up", fails)
        monkeypatch.setattr(slots_engine.Engine, "state", lambda *_: None)
        asked = FAILED | {"state": "present", "release": "1.0-a"}
        assert backend_slots.changed_slots(asked, self.layout).get("msg") is None
        assert all("nginx" not in command for command in self.ran)

    @pytest.mark.parametrize("own", [True, False])
    def test_each_nginx_that_runs_is_told_of_a_slot(self, own: bool) -> None:
        self.containers[0] = self.nginx("1", running=own)
        self.containers.append(self.nginx("run-1a2b3c", one_off=True))
        slots_engine.Engine(self.layout).choose_slot("green")
        told = [command[2] for command in self.ran if command[1] == "exec" and "sh" in command]
        assert told == (["1", "second"] if own else ["second"]), "and not an operator's container"

    def test_a_choice_that_one_refuses_is_taken_back_in_both(self) -> None:
        self.refuses.add("second")
        with pytest.raises(records.SlotError, match="it says no"):
            slots_engine.Engine(self.layout).choose_slot("green")
        assert "backend-blue" in self.layout.upstream_file.read_text()
        assert [command[2] for command in self.ran if "sh" in command] == ["1", "second"] * 2

    def test_one_that_ends_meanwhile_refuses_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses.add("1")
        monkeypatch.setattr(stack_services, "runs_on", lambda one, _: one["Id"] != "1")
        slots_engine.Engine(self.layout).choose_slot("green")
        assert "backend-green" in self.layout.upstream_file.read_text()


def test_work_that_is_killed_is_told_apart_from_work_that_failed() -> None:
    def die() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def fail() -> dict[str, Any]:
        raise KeyError("State")

    assert "was killed: run the same again" in host_change.on_its_own(die)["msg"]
    assert host_change.on_its_own(fail)["msg"] == "KeyError('State')"
    assert host_change.on_its_own(lambda: {"changed": True}) == {"changed": True}


FAILED = {"who": "tests", "about": {}, "keep": 5, "reason": "no such image", "release": "9.9", "state": "failed"}
FAILED |= {"ready_timeout": 1, "settle_seconds": 1, "drain_timeout": 1}


def test_on_a_full_disk_the_reason_is_not_lost_with_the_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(layout: records.Layout, _: Any) -> None:
        raise OSError(errno.ENOSPC, "full", str(layout.log_file))

    monkeypatch.setattr(host_change, "RUN_DIR", folder / "run")
    monkeypatch.setattr(records, "append_log", full)
    answer = host_change.on_its_own(lambda: backend_slots.change(FAILED, records.Layout(folder, SLOTS)))
    assert answer["failed"]
    assert answer["msg"].startswith("no such image\n")
    assert f"{folder}/backend/deploys.jsonl: No space left on device, a file system is full. Fix:" in answer["msg"]


def test_a_record_that_cannot_be_written_is_named_with_the_fix(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> tuple[int, str]:
        raise OSError(errno.ENOSPC, "full", "a temporary file")

    monkeypatch.setattr(host_change, "RUN_DIR", folder / "run")
    monkeypatch.setattr(tempfile, "mkstemp", full)
    asked = FAILED | {"state": "present", "about": {"version": "9.9"}}
    answer = host_change.on_its_own(lambda: backend_slots.change(asked, records.Layout(folder, SLOTS)))
    assert answer["failed"]
    assert f"{folder}/backend/releases/9.9.json: No space left on device, a file system is full" in answer["msg"]


CALLER = """
import pathlib, sys, time
from ansible_collections.tradingbot.stack.plugins.module_utils import host_change

def work():
    pathlib.Path(sys.argv[1]).write_text("begun")
    time.sleep(2)
    pathlib.Path(sys.argv[1]).write_text("done")
    return {}

host_change.on_its_own(work)
"""


def test_a_change_goes_on_when_its_caller_is_killed_with_all_its_group(tmp_path: Path) -> None:
    """As sudo does it when a connection breaks."""
    told = tmp_path / "told"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(told)], start_new_session=True, env=environment)
    until = time.monotonic() + 20
    while not told.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGKILL):
        os.killpg(caller.pid, number)
    caller.wait(timeout=10)
    assert told.read_text() == "begun"
    while told.read_text() != "done":
        assert time.monotonic() < until
        time.sleep(0.02)
