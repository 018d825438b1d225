"""The files module makes folders and files, tells what changes, and leaves alone what is right."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from forked import module

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins" / "modules" / "files.py"
# Runs the module on a host whose disk is full: a new file gets a name, and no content.
FULL = """
import errno, os, runpy

class Full:
    def __init__(self, handle, mode):
        os.close(handle)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    def write(self, _):
        pass

fdopen = os.fdopen
os.fdopen = lambda handle, mode="r", *more, **options: (
    Full(handle, mode) if mode == "wb" else fdopen(handle, mode, *more, **options)
)
runpy.run_path("MODULE", run_name="__main__")
""".replace("MODULE", str(MODULE))


def call(
    base: Path, *, ok: bool = True, check: bool = False, diff: bool = True, full: bool = False, **arguments: Any
) -> dict[str, Any]:
    """Run the module as Ansible does, as this user."""
    own = {"owner": str(os.getuid()), "group": str(os.getgid())}
    internal = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": str(base.parent)}
    words = json.dumps({"ANSIBLE_MODULE_ARGS": {"base": str(base), **own, **arguments, **internal}})
    program = MODULE
    if full:
        program = base.parent / "full.py"
        program.write_text(FULL)
    done = module(program, words)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


WANTED: dict[str, Any] = {
    "folders": [{"path": "secrets", "mode": "0700"}, {"path": "redis/conf", "mode": "0750"}],
    "files": {"redis/conf/redis.conf": "port 6379\n", "redis/compose.yaml": "services: {}\n"},
    "mode": "0640",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "opt"


def test_makes_folders_and_files_with_their_modes(base: Path) -> None:
    made = call(base, **WANTED)
    assert made["changed"]
    assert str(base / "redis/conf/redis.conf") in made["paths"]
    assert (base / "redis/conf/redis.conf").read_text() == "port 6379\n"
    assert [mode(base / path) for path in ("secrets", "redis/conf", "redis/compose.yaml")] == ["0700", "0750", "0640"]


def test_changes_nothing_the_second_time(base: Path) -> None:
    call(base, **WANTED)
    inode = (base / "redis/compose.yaml").stat().st_ino
    again = call(base, **WANTED)
    assert (again["changed"], again["paths"], again["diff"]) == (False, [], [])
    assert (base / "redis/compose.yaml").stat().st_ino == inode


@pytest.mark.parametrize("deployed", [False, True])
def test_check_mode_tells_and_writes_nothing(base: Path, deployed: bool) -> None:
    if deployed:
        call(base, **WANTED)
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    told = call(base, check=True, **{**WANTED, "files": {"redis/compose.yaml": "services: {redis: {}}\n"}})
    assert told["changed"]
    assert "redis: {}" in told["diff"][0]["after"]
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before
    assert base.exists() is deployed


def test_a_changed_file_gets_a_new_inode_and_keeps_its_mode(base: Path) -> None:
    call(base, **WANTED)
    file = base / "redis/compose.yaml"
    inode = file.stat().st_ino
    with file.open() as reader:
        told = call(base, **{**WANTED, "files": {"redis/compose.yaml": "services: {redis: {}}\n"}})
        assert reader.read() == "services: {}\n"
    assert told["paths"] == [str(file)]
    assert told["diff"][0]["before"] == "services: {}\n"
    assert (file.stat().st_ino != inode, mode(file)) == (True, "0640")


def test_corrects_modes_alone(base: Path) -> None:
    call(base, **WANTED)
    (base / "secrets").chmod(0o755)
    (base / "redis/compose.yaml").chmod(0o666)
    told = call(base, **WANTED)
    assert set(told["paths"]) == {str(base / "secrets"), str(base / "redis/compose.yaml")}
    assert told["diff"] == []
    assert (mode(base / "secrets"), mode(base / "redis/compose.yaml")) == ("0700", "0640")


def test_an_empty_file_is_a_file(base: Path) -> None:
    assert call(base, folders=[{"path": "."}], files={"empty": ""})["changed"]
    assert (base / "empty").read_bytes() == b""
    assert not call(base, folders=[{"path": "."}], files={"empty": ""})["changed"]


def test_shows_no_content_without_diff(base: Path) -> None:
    told = call(base, diff=False, folders=[{"path": "."}], files={"password": "correct horse"})
    assert told["diff"] == []


def test_a_file_may_have_a_mode_of_its_own(base: Path) -> None:
    wanted: dict[str, Any] = {
        "folders": [{"path": "."}],
        "files": {"run": "#!/bin/sh\n", "text": ""},
        "modes": {"run": "0755"},
    }
    call(base, **wanted)
    assert (mode(base / "run"), mode(base / "text")) == ("0755", "0644")
    assert not call(base, **wanted)["changed"]


def test_without_force_a_file_keeps_its_contents(base: Path) -> None:
    wanted: dict[str, Any] = {"folders": [{"path": "."}], "files": {"choice": "blue"}, "force": False}
    assert call(base, **wanted)["changed"]
    (base / "choice").write_text("green")
    (base / "choice").chmod(0o600)
    assert call(base, **wanted)["paths"] == [str(base / "choice")]
    assert ((base / "choice").read_text(), mode(base / "choice")) == ("green", "0644")
    assert not call(base, **wanted)["changed"]


def test_invalid_contents_do_not_reach_the_file(base: Path) -> None:
    validated: dict[str, Any] = {"folders": [{"path": "."}], "validate": {"conf": "grep good %s", "other": "false"}}
    call(base, **validated, files={"conf": "good 1"})
    refused = call(base, ok=False, **validated, files={"conf": "bad"})
    assert f"{base / 'conf'} stays as it is" in refused["msg"]
    assert (base / "conf").read_text() == "good 1"
    assert [path.name for path in base.iterdir()] == ["conf"]
    assert call(base, check=True, **validated, files={"conf": "bad"})["changed"], "a dry run may lack the command"
    assert not call(base, **validated, files={"conf": "good 1"})["changed"]


@pytest.mark.parametrize("arguments", [{"folders": [{"path": "thing"}]}, {"files": {"folder": "text"}}])
def test_refuses_what_is_there_as_something_else(base: Path, arguments: dict[str, Any]) -> None:
    call(base, folders=[{"path": "folder"}], files={"thing": "text"})
    assert "folder" in call(base, ok=False, **arguments)["msg"]


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"folders": [{"path": "../out"}]},
        {"files": {"../out": "text"}},
        {"files": {"/out": "text"}},
        {"files": {"inside/../../out": "text"}},
        {"files_in": "..", "files": {"out": "text"}},
        {"folders": [{"path": "fine"}], "files": {"fine/thing": "text", "../out": "text"}},
    ],
)
def test_nothing_is_done_when_a_path_leads_out_of_the_base(base: Path, arguments: dict[str, Any], check: bool) -> None:
    refused = call(base, ok=False, check=check, **arguments)
    assert f"leads out of {base}" in refused["msg"]
    assert list(base.parent.iterdir()) == []


def test_files_may_be_in_a_folder_of_their_own(base: Path) -> None:
    wanted: dict[str, Any] = {"folders": [{"path": "logs"}], "files_in": "secrets", "files": {"key": "text", "id": ""}}
    made = call(base, **wanted, modes={"key": "0400"})
    assert (base / "secrets/key").read_text() == "text"
    assert [mode(base / path) for path in ("secrets/key", "secrets/id", "secrets")] == ["0400", "0644", "0755"]
    assert str(base / "secrets") in made["paths"]


def test_what_a_dry_run_promises_of_a_file_without_a_folder_is_done(base: Path) -> None:
    wanted: dict[str, Any] = {"files": {"some/where/thing": "text"}}
    assert call(base, check=True, **wanted)["changed"]
    assert not base.exists()
    assert call(base, **wanted)["changed"]
    assert (base / "some/where/thing").read_text() == "text"
    assert mode(base / "some") == "0755"


def test_a_full_disk_is_named_with_the_file_and_the_fix_and_leaves_the_file(base: Path) -> None:
    call(base, **WANTED)
    path = base / "redis/conf/redis.conf"
    said = call(base, ok=False, full=True, **(WANTED | {"files": {"redis/conf/redis.conf": "port 6380\n"}}))["msg"]
    assert said.startswith(f"{path}: No space left on device, a file system is full. Fix: `df -h`")
    assert path.read_text() == "port 6379\n"
    assert [one.name for one in path.parent.iterdir()] == ["redis.conf"]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("wanted", [{"folders": [{"path": "a/b/c"}]}, {"files": {"a/b/c": ""}}, {"files": {"a/c": ""}}])
def test_a_file_in_the_place_of_a_folder_is_refused_also_in_check_mode(
    base: Path, check: bool, wanted: dict[str, Any]
) -> None:
    call(base, files={"a": "a file"})
    assert call(base, ok=False, check=check, **wanted)["msg"] == f"{base}/a is there and is no folder"
