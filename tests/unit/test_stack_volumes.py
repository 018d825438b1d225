# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The health check sees whether the stack can write where it keeps its data, as its containers see it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_table, stack_volumes
from test_stack_health import Host, container, host

__all__ = ["host"]
VOLUME = "/var/lib/docker/volumes/tradingbot_postgres_data/_data"
DATA = "/var/lib/postgresql/data"


class Disks:
    """A made-up host: folders with the file system (a number) that each is on, and how full those are."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.free = {1: 500, 2: 500}
        self.inodes = {1: 50.0, 2: 50.0}
        self.refuses: dict[str, int] = {}
        self.device: dict[str, int] = {}
        self.written: list[str] = []
        monkeypatch.setattr(stack_volumes, "file_system", self.file_system)
        monkeypatch.setattr(stack_volumes, "write_error", self.write_error)

    def file_system(self, path: str) -> dict[str, Any]:
        if path not in self.device:
            raise FileNotFoundError(path)
        device = self.device[path]
        space = {"free_mb": self.free[device], "free_percent": self.free[device] / 10}
        return {"device": device, "inode": hash(path), "free_inodes_percent": self.inodes[device]} | space

    def write_error(self, path: str) -> str:
        self.written.append(path)
        return os.strerror(self.refuses[path]) if path in self.refuses else ""

    def container(self, service: str, path: str, source: str, device: int, **more: Any) -> dict[str, Any]:
        """Return a container with a mount on a file system."""
        pid = 7000 + len(self.device) if more.get("running", True) else 0
        self.device[f"{self.root}/proc/{pid}/root{path}" if pid else source] = device
        mount = {"Type": more.get("type", "volume"), "Destination": path, "Source": source, "RW": more.get("rw", True)}
        mount |= {"Name": source.split("/")[-2]} if mount["Type"] == "volume" else {}
        return container(service) | {"Mounts": [mount], "State": {"Running": bool(pid), "Pid": pid}}

    def look(self, *containers: dict[str, Any]) -> list[dict[str, Any]]:
        self.device[str(self.root)] = 1
        return stack_volumes.look(containers, [str(self.root)], self.root)

    def problems(self, *containers: dict[str, Any]) -> list[str]:
        found = list(stack_volumes.volume_problems(self.look(*containers), 10))
        assert all(one["fix"] for one in found)
        return [f"{one['what']}: {one['why']}" for one in found]


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(tmp_path, monkeypatch)


def test_a_volume_on_the_hosts_disk_is_no_file_system_of_its_own(disks: Disks) -> None:
    postgres = disks.container("postgres", DATA, VOLUME, 1)
    (row,) = disks.look(postgres)
    assert (row["own"], row["error"]) == (False, "")
    # The disk of the host is named as such, and once.
    disks.free[1] = 10
    assert disks.problems(postgres) == []


def test_a_volume_that_is_nearly_full_is_named_with_its_place_and_what_is_free(disks: Disks) -> None:
    postgres = disks.container("postgres", DATA, VOLUME, 2)
    assert disks.problems(postgres) == []
    disks.free[2] = 99
    (found,) = stack_volumes.volume_problems(disks.look(postgres), 10)
    assert found["what"] == "volume tradingbot_postgres_data"
    assert found["why"] == (
        "99 MiB (9.9%) and 50% of the inodes are free on its file system (mounted at /var/lib/postgresql/data in"
        " postgres), 10% are wanted"
    )
    assert f"`du -xhd1 {VOLUME}`" in found["fix"]
    assert found["fix"].endswith("remove no file that is PostgreSQL's own")


def test_a_volume_without_inodes_is_named(disks: Disks) -> None:
    disks.inodes[2] = 0
    (said,) = disks.problems(
        disks.container("redis", "/data", "/var/lib/docker/volumes/tradingbot_redis_data/_data", 2)
    )
    assert "and 0% of the inodes are free" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("device", [1, 2])
def test_what_cannot_be_written_is_named_once_also_on_the_hosts_disk(disks: Disks, number: int, device: int) -> None:
    logs = disks.container("backend-blue", "/app/logs", "/opt/tradingbot/logs", device, type="bind")
    redis = disks.container("redis", "/data", "/var/lib/docker/volumes/tradingbot_redis_data/_data", device)
    for one in (logs, redis):
        disks.refuses[f"{disks.root}/proc/{one['State']['Pid']}/root{one['Mounts'][0]['Destination']}"] = number
    (said,) = disks.problems(logs, redis)
    assert said == (
        f"folder /opt/tradingbot/logs: backend-blue cannot write to /app/logs ({os.strerror(number)}):"
        " 500 MiB (50%) and 50% of the inodes are free on its file system, which has redis /data, too"
    )


def test_a_write_is_tried_where_the_container_writes_and_nowhere_else(disks: Disks) -> None:
    logs = disks.container("backend-blue", "/app/logs", "/opt/tradingbot/logs", 1, type="bind")
    models = disks.container("worker", "/app/models", "/opt/tradingbot/models", 1, type="bind", rw=False)
    stopped = disks.container("redis", "/data", "/var/lib/docker/volumes/tradingbot_redis_data/_data", 1, running=False)
    disks.look(logs, models, stopped)
    inside = f"{disks.root}/proc/{logs['State']['Pid']}/root/app/logs"
    assert disks.written == [inside, "/var/lib/docker/volumes/tradingbot_redis_data/_data"]


def test_a_container_that_has_just_ended_is_left_out(disks: Disks) -> None:
    postgres = disks.container("postgres", DATA, VOLUME, 1)
    disks.device.clear()
    assert disks.look(postgres) == []


def test_a_real_write_leaves_nothing_behind(tmp_path: Path) -> None:
    assert stack_volumes.write_error(str(tmp_path)) == ""
    assert list(tmp_path.iterdir()) == []
    assert stack_volumes.write_error(str(tmp_path / "gone")) == os.strerror(errno.ENOENT)


@pytest.mark.parametrize(
    ("blocks", "free", "said"), [(1000, 0, True), (1000, 15, True), (1000, 16, False), (0, 0, False)]
)
def test_the_reserve_of_root_counts_as_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, said: bool
) -> None:
    """Only root can write there, as this probe does; a file system that counts no blocks is no full one."""
    stats = os.statvfs_result((4096, 4096, blocks, free + 50, free, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: stats)
    assert stack_volumes.write_error(str(tmp_path)) == (os.strerror(errno.ENOSPC) if said else "")


def test_the_files_of_a_real_host_are_looked_at(tmp_path: Path) -> None:
    for name in ("data", "secrets"):
        (tmp_path / name).mkdir()
    (tmp_path / "secrets/password").write_text("x")
    os.mknod(tmp_path / "journal", stat.S_IFSOCK | 0o600)
    mounts = [
        {"Type": "bind", "Destination": "/data", "Source": str(tmp_path / "data"), "RW": True},
        {"Type": "bind", "Destination": "/dev/log", "Source": str(tmp_path / "journal"), "RW": False},
        {"Type": "bind", "Destination": "/run/secrets/x", "Source": str(tmp_path / "secrets/password"), "RW": False},
        {"Type": "tmpfs", "Destination": "/tmp", "Source": ""},
    ]
    (row,) = stack_volumes.look([container("redis") | {"Mounts": mounts}], [str(tmp_path)])
    assert not row["own"]
    assert [one["path"] for one in row["mounts"]] == ["/data", "/run/secrets/x"]


def test_a_database_that_does_not_write_is_named_with_the_fix(host: Host) -> None:
    full = 'ERROR:  could not extend file "base/5/t11_1": No space left on device\nHINT:  Check free disk space.\n'
    host.programs.answers["psql"] = (1, "", full)
    (found,) = host.look()["problems"]
    assert found["what"] == "postgres"
    assert found["why"].startswith("it does not write, so alerts are answered 503: ERROR:  could not extend file")
    assert "a file system is full. Fix: `df -h`" in found["fix"]


@pytest.mark.parametrize(("services", "state"), [(["redis"], "running"), (["postgres"], "exited")])
def test_only_a_database_that_runs_here_is_asked(host: Host, services: list[str], state: str) -> None:
    host.programs.answers["psql"] = (1, "", "ERROR: no")
    host.settings.services = services
    host.replace("postgres", container("postgres", state))
    assert host.look()["database_error"] == ""


def test_a_full_volume_shows_in_the_table_and_as_a_problem(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = {"what": "volume data", "service": "postgres", "path": DATA, "source": VOLUME, "writable": True}
    full = {"own": True, "free_mb": 3, "free_percent": 0.5, "free_inodes_percent": 50.0, "mounts": [mount], "error": ""}
    monkeypatch.setattr(stack_volumes, "look", lambda *_: [full])
    report = host.look()
    assert [one["what"] for one in report["problems"]] == ["volume data"]
    assert "volume data: 3 MiB free (0.5%)" in stack_table.health_text(report)
