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
from ansible_collections.tradingbot.stack.plugins.module_utils import host_change, slots_engine, target
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
