"""Every container of the project is confined and looked after, whichever service it is."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

import pytest

from tests.stack.host import COMPOSE, active_slot, output_of, run_on, services, wait_until
from tests.testbed import hosts

APPUSER = "10001:10001"
USERS = {"postgres": "70:70", "redis": "999:1000", "backend": APPUSER, "worker": APPUSER, "nginx": "101:101"}
# Read on the host, so that no tool of an image is needed.
# A health check may end before it is looked at; its first moments are the engine's, which gives its rights away.
STATUS = """
import json, sys
for pid in sys.argv[1:]:
    try:
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.rstrip().split(":", 1) for line in status)
    except (FileNotFoundError, ProcessLookupError):
        continue
    if not fields["Name"].strip().startswith("runc"):
        print(json.dumps({name: value.split() for name, value in fields.items()}))
"""
FOLDERS = ["/", "/etc", "/usr", "/usr/bin", "/root", "/var", "/home", "/run/secrets"]
NAMESPACES = ["pid", "ipc", "net", "uts", "mnt"]


@pytest.fixture(scope="module")
def containers(machine: hosts.Host) -> dict[str, dict[str, Any]]:
    """What Docker knows of each container of the project: also of a service that is new."""
    return services(machine)


def main_process(found: dict[str, Any]) -> int:
    """Return the number, on the host, of the container's first process."""
    return int(found["State"]["Pid"])


def test_they_are_the_services_of_the_project(machine: hosts.Host, containers: dict[str, Any]) -> None:
    described = output_of(machine, f"{COMPOSE} config --services").split()
    assert set(containers) == {"backend" if name == active_slot(machine) else name for name in described}
    assert set(containers) >= set(USERS)


def test_all_are_healthy_by_a_check_every_30_seconds(machine: hosts.Host) -> None:
    wait_until(
        lambda: all(found["State"]["Health"]["Status"] == "healthy" for found in services(machine).values()),
        60,
        "all services healthy",
    )
    for name, found in services(machine).items():
        check = found["Config"]["Healthcheck"]
        assert check["Interval"] == 30_000_000_000, name
        assert check["StartPeriod"] > 0, name
        assert 0 < check["Timeout"] < check["Interval"], name


def test_all_run_as_a_user_without_rights(machine: hosts.Host, containers: dict[str, Any]) -> None:
    for name, found in containers.items():
        assert found["Config"]["User"] == USERS.get(name, found["Config"]["User"]), name
        pids = output_of(machine, f"docker top {found['Id']} -eo pid").split()[1:]
        processes = [
            json.loads(line) for line in output_of(machine, f"python3 - {' '.join(pids)}", STATUS).splitlines()
        ]
        assert [str(main_process(found))] in [process["Pid"] for process in processes]
        for process in processes:
            what = f"{name}: {process['Name']}"
            assert "0" not in process["Uid"] + process["Gid"] + process["Groups"], what
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(process[kind][0], 16) == 0, f"{what}: {kind}"
            assert process["NoNewPrivs"] == ["1"], what


def test_nothing_is_shared_with_the_host(machine: hosts.Host, containers: dict[str, Any]) -> None:
    links = [f"/proc/{{pid}}/ns/{kind}" for kind in NAMESPACES]
    own = output_of(machine, "readlink " + " ".join(link.format(pid=1) for link in links)).split()
    for name, found in containers.items():
        seen = output_of(
            machine, "readlink " + " ".join(link.format(pid=main_process(found)) for link in links)
        ).split()
        assert not set(seen) & set(own), name
        settings = found["HostConfig"]
        assert settings["Privileged"] is False, name
        assert not settings["Devices"], name
        assert not settings["CapAdd"], name
        assert settings["CapDrop"] == ["ALL"], name
        assert settings["SecurityOpt"] == ["no-new-privileges:true"], name
        assert list(found["NetworkSettings"]["Networks"]) == ["tradingbot-network"], name


def test_what_is_mounted_of_the_host_is_of_the_project(containers: dict[str, Any]) -> None:
    """No Docker socket above all; secrets and configuration cannot be written. nginx's log goes to the journal."""
    writable = re.compile(r"/opt/tradingbot/(logs|cache)")
    for name, found in containers.items():
        for mount in found["Mounts"]:
            where = f"{name}: {mount['Source']}"
            assert "docker.sock" not in mount["Source"], where
            if mount["Type"] == "bind":
                is_journal = name == "nginx" and mount["Source"].startswith("/run/systemd/journal")
                assert mount["Source"].startswith("/opt/tradingbot/") or is_journal, where
                assert mount["RW"] == bool(writable.fullmatch(mount["Source"])), where
            else:
                assert (mount["Type"], mount["Name"]) == ("volume", f"tradingbot_{name}_data"), where


@pytest.mark.parametrize("user", ["", "--user 0"])
def test_nothing_outside_the_data_can_be_written(machine: hosts.Host, containers: dict[str, Any], user: str) -> None:
    """Neither by the service, nor by root inside the container."""
    attempts = 'for folder in "$@"; do touch "$folder/written" && echo "written: $folder"; done'
    reasons = ["Read-only file system", "No such file or directory"] + ([] if user else ["Permission denied"])
    for name, found in containers.items():
        assert found["HostConfig"]["ReadonlyRootfs"] is True, name
        command = f"docker exec {user} {found['Id']} sh -c {shlex.quote(attempts)} - {' '.join(FOLDERS)}"
        attempt = run_on(machine, command)
        refusals = attempt.stderr.splitlines()
        assert attempt.stdout == "", name
        assert len(refusals) == len(FOLDERS), f"{name}: {attempt.stderr}"
        for refusal in refusals:
            assert refusal.endswith(tuple(reasons)), f"{name}: {refusal}"


def test_limits_are_set_and_in_force(machine: hosts.Host, containers: dict[str, Any]) -> None:
    told = json.loads(output_of(machine, "docker info --format '{{json .}}'"))
    for name, found in containers.items():
        settings = found["HostConfig"]
        for limit, most in {"Memory": told["MemTotal"], "NanoCpus": told["NCPU"] * 10**9, "PidsLimit": 1024}.items():
            assert 0 < settings[limit] <= most, f"{name}: {limit}"
        assert settings["MemorySwap"] <= 2 * settings["Memory"], name
        assert not settings["OomKillDisable"], name
        used = output_of(machine, f"docker stats --no-stream --format '{{{{.MemUsage}}}}' {found['Id']}")
        limit = used.rpartition(" / ")[2]
        seen = float(limit[:-3]) * {"MiB": 1 << 20, "GiB": 1 << 30}[limit[-3:]]
        assert seen == pytest.approx(settings["Memory"], rel=0.01), name


def test_logs_are_rotated(containers: dict[str, Any]) -> None:
    for name, found in containers.items():
        log = found["HostConfig"]["LogConfig"]
        assert log["Type"] == "json-file", name
        assert re.fullmatch(r"\d+[km]", log["Config"]["max-size"]), name
        assert 1 <= int(log["Config"]["max-file"]) <= 10, name


def test_all_come_back_and_have_time_to_end(containers: dict[str, Any]) -> None:
    for name, found in containers.items():
        assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped", name
        assert found["Config"]["StopTimeout"] >= 10, name
        assert found["HostConfig"]["AutoRemove"] is False, name


@pytest.mark.parametrize(("command", "said"), [("whoami", "appuser"), ("id -u", "10001"), ("id -G", "10001")])
def test_the_backend_is_appuser(machine: hosts.Host, command: str, said: str) -> None:
    assert output_of(machine, f"{COMPOSE} exec -T worker {command}") == said


def test_all_end_in_order_when_they_are_told_to(machine: hosts.Host) -> None:
    """A container that ignores the signal is killed when its time is over, with code 137; a reboot waits for that."""
    try:
        start = time.monotonic()
        output_of(machine, f"{COMPOSE} stop", seconds=120)
        took = time.monotonic() - start
        codes = {name: found["State"]["ExitCode"] for name, found in services(machine).items()}
    finally:
        output_of(machine, f"{COMPOSE} up --detach --wait --no-recreate", seconds=120)
    # 143: ended by SIGTERM itself, which is as orderly.
    assert set(codes.values()) <= {0, 143}, codes
    assert took < 30
