# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The health check sees all that can be wrong with a host, on made-up hosts, engines and answers."""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.module_utils import (
    stack_health,
    stack_network,
    stack_services,
    stack_table,
    target,
)
from ansible_collections.tradingbot.stack.plugins.modules import stack_health as module

ROOT = Path(__file__).resolve().parents[2]
MARK = "ab" * 32
NGINX_CONF = f"""# configuration {MARK}
http {{
    server {{
        listen 8080 default_server;
        server_name _;
    }}
    server {{
        listen 8443 ssl;
        server_name *.example.com www.example.org;
    }}
}}
"""


def container(service: str, state: str = "running", health: str = "healthy", **more: Any) -> dict[str, Any]:
    """What the engine says of a container."""
    running = state == "running"
    labels = {"com.docker.compose.project": "tradingbot", "com.docker.compose.service": service}
    return {
        "Id": f"id-{service}",
        "Name": f"/tradingbot-{service}-1",
        "RestartCount": more.get("restarts", 0),
        "State": {
            "Status": state,
            "Running": running,
            "ExitCode": more.get("code", 0),
            "OOMKilled": more.get("oom", False),
            **({"Health": {"Status": health}} if health else {}),
        },
        "HostConfig": {"Memory": 512 << 20, "PortBindings": more.get("ports", {})},
        "Config": {"Image": more.get("image", f"{service}:1"), "Labels": labels | more.get("labels", {})},
        "NetworkSettings": {"Networks": {"tradingbot-network": {"IPAddress": "172.20.0.11" if running else ""}}},
    }


class Engine:
    """Answers in place of Docker's API."""

    def __init__(self, *containers: dict[str, Any], used: int = 100 << 20) -> None:
        self.containers = list(containers)
        self.used = used
        self.away = False

    def get(self, resource: str, path: str = "", timeout: float = 5.0) -> Any:
        if self.away:
            return None
        if resource.startswith("/containers/json"):
            return [{"Id": one["Id"]} for one in self.containers]
        if resource == "/info":
            return {"DockerRootDir": "/"}
        identity = resource.split("/")[2]
        found = next((one for one in self.containers if one["Id"] == identity), None)
        if found is not None and "/stats?" in resource:
            return {"memory_stats": {"usage": self.used, "stats": {"inactive_file": 0}}}
        return found


class Programs:
    """Answers in place of the programs that the check runs; notes what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, str]] = {
            "tradingbot status": told(),
            "psql": (0, "", ""),
            "curl": (0, f"{MARK} backend-blue 0\n", ""),
            "openssl": (0, f"notAfter={enddate(100)}\n", ""),
        }

    def run(self, command: list[str], timeout: float) -> tuple[int, str, str]:
        line = " ".join(command)
        return next(answer for words, answer in self.answers.items() if words in line)


def enddate(days: float) -> str:
    # Six hours more, for some are made when tests are collected, and looked at minutes later.
    return time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + days * 86400 + 6 * 3600))


def record(folder: Path, **changes: Any) -> None:
    stored = {"active": "blue", "slots": {"blue": "0.3.0-1", "green": None}, "worker": "0.3.0-1"} | changes
    (folder / "backend" / "slots.json").write_text(json.dumps(stored))


class Host:
    """A made-up host on which all is well."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("backend", "nginx/conf", "nginx/live", "nginx/tls/live"):
            (folder / name).mkdir(parents=True)
        (folder / "nginx/conf/nginx.conf").write_text(NGINX_CONF)
        self.upstream("blue")
        record(folder)
        self.programs = Programs()
        self.web: tuple[int, str] = (200, "")
        self.ready: tuple[int, str] = (200, '{"checks": {"postgresql": "ok", "redis": "ok", "schema": "ok"}}')
        self.settings = stack_health.Settings(project_dir=str(folder), thresholds={"clock_synchronised": False})
        ports = {"8443/tcp": [{"HostIp": "", "HostPort": "443"}]}
        self.engine = Engine(
            *(container(name) for name in ("postgres", "redis", "backend-blue", "worker")),
            container("nginx", ports=ports),
        )
        self.lock = folder / "deploy.lock"
        monkeypatch.setattr(target, "docker_get", self.engine.get)
        monkeypatch.setattr(stack_health, "run", self.programs.run)
        monkeypatch.setattr(stack_health, "_ask", self.answer)
        monkeypatch.setattr(stack_health, "WEB_ATTEMPTS", 1)
        self.network: dict[str, Any] = {"forwarding": {}, "firewall": "", "rules": [], "flushed_by": []}
        self.network["outside"] = {
            "url": "https://192.0.2.9:443",
            "source": "192.0.2.2",
            "status": 200,
            "milliseconds": 9,
            "error": "",
        }
        self.asked: list[Any] = []
        # Where an interrupted replacement of nginx leads its clients.
        self.led_to = ""
        monkeypatch.setattr(stack_network, "handover", lambda: self.led_to)
        monkeypatch.setattr(stack_network, "look", self.look_at_network)
        # Where nginx logs to is seen through its process, of which there is none.
        self.log: list[dict[str, str]] = []
        monkeypatch.setattr(stack_health, "log_problems", lambda *_: self.log)
        monkeypatch.setattr(stack_services.deploy_lock, "__defaults__", (self.lock, None))
        # The machine that the tests run on may be full.
        space = {"path": str(folder), "free_mb": 900, "free_percent": 50.0, "free_inodes_percent": 50.0}
        self.disk = space
        monkeypatch.setattr(stack_health, "disks", lambda _: [self.disk])
        self.memory = {"total_mb": 4000, "available_mb": 2000, "available_percent": 50.0}
        monkeypatch.setattr(stack_health, "memory", lambda *_: self.memory)

    def answer(self, _scheme: str, _host: str, _port: int, path: str, *_: Any) -> tuple[int, str]:
        return self.ready if path == stack_health.READY else self.web

    def look_at_network(self, *asked: Any) -> dict[str, Any]:
        self.asked = list(asked)
        return dict(self.network)

    def upstream(self, slot: str) -> None:
        text = f'# Written by a deploy.\nmap "" $active_backend {{ default backend-{slot}; }}\n'
        (self.folder / "nginx/live/upstream.conf").write_text(text)

    def replace(self, service: str, *others: dict[str, Any]) -> None:
        kept = [one for one in self.engine.containers if one["Id"] != f"id-{service}"]
        self.engine.containers = [*kept, *others]

    def look(self) -> dict[str, Any]:
        return stack_health.look(self.settings)

    def problems(self) -> list[str]:
        found = self.look()["problems"]
        assert all(set(one) == {"what", "why", "fix"} and all(one.values()) for one in found)
        return [f"{one['what']}: {one['why']}" for one in found]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_all_is_well(host: Host) -> None:
    report = host.look()
    assert report["problems"] == []
    assert report["healthy"] is True
    assert [row["service"] for row in report["services"]] == ["backend-blue", "nginx", "postgres", "redis", "worker"]
    assert report["queue"] == {"depth": 0, "oldest_seconds": None}
    assert report["tls"]["days"] == 100
    assert report["backup"] is None
    assert report["proxy"]["maintenance"] is False
    json.dumps(report)


def test_clients_that_do_not_get_in(host: Host) -> None:
    host.network["forwarding"] = {"net.ipv4.ip_forward": []}
    host.network["outside"] |= {"status": 0, "error": "no connection"}
    (said,) = host.problems()
    assert said.startswith("forwarding: net.ipv4.ip_forward is 0, so the host passes no packet on")
    assert host.look()["network"]["problems"] == host.look()["problems"]
    assert "from outside    no connection" in stack_table.health_text(host.look())


def test_a_web_server_is_not_blamed_for_lost_rules(host: Host) -> None:
    host.web = (0, "timed out")
    host.network["rules"] = ["port 443 of nginx"]
    (said,) = host.problems()
    assert said.startswith("Docker's rules: they are gone for port 443 of nginx: something flushed them")


def test_who_looks_from_outside_asks_the_web_server(host: Host) -> None:
    assert host.problems() == []
    containers, web, firewall, ask = host.asked
    assert {one["Id"] for one in containers} == {f"id-{name}" for name in (*stack_health.SERVICES, "backend-blue")} - {
        "id-backend"
    }
    assert (web["Id"], firewall) == ("id-nginx", True)
    assert ask("https", "192.0.2.9", 443, 1.0) == (200, "")
    host.settings.thresholds["from_outside"] = False
    host.settings.firewall = False
    host.replace("nginx", container("nginx", "exited"))
    host.look()
    assert host.asked[1:] == [None, False, None]


def test_a_host_may_carry_some_services_only(host: Host) -> None:
    host.settings.services = ["postgres"]
    host.engine.containers = [container("postgres")]
    (host.folder / "backend/slots.json").unlink()
    report = host.look()
    assert report["healthy"]
    assert (report["tls"], report["schema"], report["web"]) == (None, None, None)


def test_without_an_engine_the_host_is_still_looked_at(host: Host) -> None:
    host.engine.away = True
    host.programs.answers["openssl"] = (0, f"notAfter={enddate(3)}\n", "")
    assert host.problems() == [
        "Docker: no engine answers at /run/docker.sock",
        "certificate: it ends in 3 days, 14 are wanted",
    ]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (None, "redis: it has no container"),
        (
            container("redis", "exited", "", code=137, oom=True),
            "redis: it is exited, exit code 137, it was out of memory",
        ),
        (container("redis", "exited", "healthy", code=1), "redis: it is exited, exit code 1"),
        (container("redis", "created", "", code=0), "redis: it is created, exit code 0"),
        (container("redis", "running", "unhealthy"), "redis: it runs, and its health check says unhealthy"),
        (container("redis", "running", "starting"), "redis: it runs, and its health check says starting"),
        (container("redis", "running", ""), "redis: it has no health check, so nobody knows"),
    ],
)
def test_a_service_that_is_not_well(host: Host, gone: dict[str, Any] | None, said: str) -> None:
    host.replace("redis", *([gone] if gone else []))
    assert host.problems() == [said]


def test_a_backend_that_does_without_redis(host: Host) -> None:
    host.ready = (200, '{"checks": {"postgresql": "ok", "redis": "does not answer", "schema": "ok"}}')
    (said,) = host.problems()
    assert said.startswith("backend: degraded: redis does not answer. Alerts are taken and orders placed")


@pytest.mark.parametrize(
    "answer",
    [
        (0, "Connection refused"),
        (503, '{"checks": {"postgresql": "does not answer", "redis": "ok", "schema": "does not answer"}}'),
        (200, '{"status": "ready"}'),
        (200, "[]"),
    ],
)
def test_a_backend_that_says_nothing_of_redis(host: Host, answer: tuple[int, str]) -> None:
    host.ready = answer
    assert host.problems() == []


def test_a_service_that_keeps_falling_over_does_not_run() -> None:
    row = container("redis", "restarting", "", restarts=9)
    row["State"]["Running"] = row["State"]["Restarting"] = True
    found = stack_services.describe(row, "/nowhere")
    assert (found["running"], found["restarts"]) == (False, 9)


def test_memory_near_its_limit(host: Host) -> None:
    host.engine.used = 500 << 20
    host.settings.services = ["worker"]
    assert host.problems() == ["worker's memory: it uses 500 of 512 MiB, 98%"]
    host.settings.thresholds["memory_percent_of_limit"] = 99
    assert host.problems() == []


@pytest.mark.parametrize(
    ("stats", "used"),
    [
        ({"memory_stats": {"usage": 100, "stats": {"inactive_file": 30, "active_file": 20}}}, 50),
        ({"memory_stats": {"usage": 100, "stats": {"total_inactive_file": 30, "inactive_file": 1}}}, 70),
        ({"memory_stats": {"usage": 10, "stats": {"inactive_file": 30}}}, 0),
        ({"memory_stats": {"usage": 10}}, 10),
        ({"memory_stats": {}}, None),
        ({}, None),
        (None, None),
        ("broken", None),
    ],
)
def test_memory_that_the_kernel_cannot_let_go_of(stats: Any, used: int | None) -> None:
    assert stack_services.memory_used(stats) == used


@pytest.mark.parametrize(
    ("service", "image", "label", "version"),
    [
        ("backend-green", "tradingbot-backend:0.3.0-0123456789ab", "0.3.0", "0.3.0"),
        ("worker", "tradingbot-backend:0.3.0-0123456789ab", "", "0.3.0-0123456789ab"),
        ("postgres", "postgres:15-alpine", "3.20", "15-alpine"),
        ("redis", "registry:5000/redis@sha256:00", "7.4", "7.4"),
        ("nginx", "registry:5000/nginx:1.30-alpine@sha256:00", "", "1.30-alpine"),
        ("nginx", "sha256:00", "", "?"),
    ],
)
def test_version(service: str, image: str, label: str, version: str) -> None:
    labels = {stack_services.VERSION_LABEL: label} if label else {}
    if image == "sha256:00":
        image = "sha256"
    assert stack_services.version_of(container(service, image=image, labels=labels)) == version


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"active": "red", "slots": {"blue": null}, "worker": null}'])
def test_a_broken_record(host: Host, text: str) -> None:
    (host.folder / "backend/slots.json").write_text(text)
    (first, second) = host.problems()
    assert first == "backend: it has no container"
    assert second.startswith(f"backend slots: {host.folder}/backend/slots.json is not the record of the slots (")


def test_no_record(host: Host) -> None:
    (host.folder / "backend/slots.json").unlink()
    host.replace("backend-blue", container("backend"))
    assert host.problems() == [f"backend slots: {host.folder}/backend/slots.json is not there"]


def test_a_backend_that_was_never_started(host: Host) -> None:
    record(host.folder, active=None, slots={"blue": None, "green": None}, worker=None)
    assert "backend slots: no slot gets requests: the backend was never started in full" in host.problems()


def test_the_active_slot_does_not_run(host: Host) -> None:
    host.replace("backend-blue", container("backend-blue", "exited", code=3))
    assert host.problems() == ["backend-blue: it is exited, exit code 3"]


def test_record_web_server_and_what_runs_may_differ(host: Host) -> None:
    host.upstream("green")
    assert host.problems() == [
        "backend slots: the record says backend-blue, and nginx/live/upstream.conf says backend-green",
        "nginx: it sends requests to backend-blue, and live/upstream.conf says backend-green",
    ]
    (host.folder / "nginx/live/upstream.conf").write_text("nonsense\n")
    assert host.problems()[0].endswith("says backend-?")


def test_without_a_web_server_nothing_is_chosen(host: Host) -> None:
    (host.folder / "nginx/live/upstream.conf").unlink()
    host.settings.services = ["postgres", "redis", "backend", "worker"]
    assert host.problems() == []


@pytest.mark.parametrize("release", ["0.2.0-9", None])
def test_a_second_slot_is_left_over(host: Host, release: str | None) -> None:
    record(host.folder, slots={"blue": "0.3.0-1", "green": release})
    host.engine.containers.append(container("backend-green", "exited", code=0))
    said = release or "no release is recorded"
    assert host.problems() == [f"backend-green: it is left over from an interrupted deploy ({said})"]
    # While a deploy is under way it has to be there.
    holder = {"who": "root@controller", "since": time.time() - 20, "purpose": "deploy 0.3.0", "valid_seconds": 3600}
    host.lock.write_text(json.dumps(holder))
    report = host.look()
    assert report["healthy"]
    assert report["slots"]["lock"]["who"] == "root@controller"
    # A lock counts for as long as it says, which is what keeps the next deploy out.
    host.lock.write_text(json.dumps(holder | {"since": time.time() - 3500}))
    assert host.problems() == []
    for gone in (holder | {"since": time.time() - 3700}, holder | {"since": time.time() - 1000, "valid_seconds": 900}):
        host.lock.write_text(json.dumps(gone))
        assert len(host.problems()) == 1


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"since": "x", "who": "y"}'])
def test_a_lock_that_names_nobody_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    assert stack_services.deploy_lock(tmp_path / "lock") == {}
    assert stack_services.deploy_lock(tmp_path / "nothing") == {}


def test_a_container_from_before_there_were_slots(host: Host) -> None:
    host.engine.containers.append(container("backend"))
    assert host.problems() == ["backend: its container is left over from before there were slots"]


def test_a_replacement_of_nginx_that_was_interrupted(host: Host) -> None:
    second = {"com.docker.compose.oneoff": "True"}
    host.engine.containers.append(
        container("nginx", labels=second) | {"Id": "id-second", "Name": "/tradingbot-nginx-second"}
    )
    host.led_to = "172.20.0.9"
    assert host.problems() == [
        "nginx's replacement: it was interrupted, and left the container tradingbot-nginx-second",
        "nginx's replacement: it was interrupted: the table `ip tradingbot_nginx` leads new connections to 172.20.0.9",
    ]
    assert all("`tradingbot rules`" in one["fix"] for one in host.look()["problems"])
    assert [row["service"] for row in host.look()["services"]].count("nginx") == 1
    host.lock.write_text(json.dumps({"since": time.time(), "who": "somebody"}))
    assert host.problems() == [], "it goes on"


LOOK_AT_LOG = stack_health.log_problems


def test_nginx_logs_where_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container of before this journal, or of another start of its socket."""
    web, seen = {"State": {"Pid": 7}}, tmp_path / "proc/7/root/run/journal"
    seen.mkdir(parents=True)
    # A path of a socket is short.
    monkeypatch.chdir(tmp_path)
    configuration = tmp_path / "nginx/conf/nginx.conf"
    configuration.parent.mkdir(parents=True)

    def why() -> list[str]:
        return [one["why"] for one in LOOK_AT_LOG(web, tmp_path, Path())]

    configuration.write_text("access_log /dev/stdout;\n")
    assert why() == [], "of an earlier version"
    configuration.write_text(f"access_log syslog:server=unix:{stack_health.NGINX_LOG} tradingbot;\n")
    lost = "its lines are lost: nothing takes them at /run/journal/dev-log in its container"
    assert why() == [f"{lost} (No such file or directory)"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind("proc/7/root/run/journal/dev-log")
        assert why() == []
    assert why() == [f"{lost} (Connection refused)"]


def test_a_log_that_is_lost_is_a_problem(host: Host) -> None:
    host.log = [stack_services.problem("nginx's log", "its lines are lost", "run site.yml")]
    assert host.problems() == ["nginx's log: its lines are lost"]
    host.replace("nginx", container("nginx", "exited"))
    assert not any(one.startswith("nginx's log") for one in host.problems())


def test_a_worker_of_another_release(host: Host) -> None:
    record(host.folder, worker="0.2.0-9")
    assert host.problems() == ["worker: it runs 0.2.0-9, and backend-blue runs 0.3.0-1"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((1, "", "noise\nPostgreSQL does not answer\n"), "the backend cannot tell: PostgreSQL does not answer"),
        ((124, "", "no answer within 15 s"), "the backend cannot tell: no answer within 15 s"),
        ((0, "not JSON", ""), "the backend cannot tell: `tradingbot status --json` said 'not JSON'"),
        ((0, "{}", ""), "the backend cannot tell: `tradingbot status --json` said '{}'"),
        ((0, "", ""), "the backend cannot tell: `tradingbot status --json` said 'it said nothing'"),
    ],
)
def test_a_backend_that_does_not_tell(host: Host, answer: tuple[int, str, str], said: str) -> None:
    host.programs.answers["tradingbot status"] = answer
    assert host.problems() == [f"schema and queue: {said}"]


def told(schema: dict[str, Any] | None = None, queue: dict[str, Any] | None = None) -> tuple[int, str, str]:
    first = {"current": "0003", "head": "0003", "oldest": "0001", "ok": True}
    answer = {"schema": first | (schema or {}), "queue": {"depth": 0, "oldest_seconds": None} | (queue or {})}
    return 0, json.dumps(answer | {"version": "0.3.0"}), ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": {"current": "0002", "ok": False}}, "schema: the database is at 0002, this version needs 0003"),
        ({"schema": {"current": None, "ok": False}}, "schema: the database is at no revision, this version needs 0003"),
        ({"queue": {"depth": 1001, "oldest_seconds": 3}}, "queue: 1001 signals wait, up to 1000 are well"),
        ({"queue": {"depth": 1, "oldest_seconds": 61.2}}, "queue: a signal has waited for 61 s, up to 60 s are well"),
    ],
)
def test_schema_and_queue(host: Host, changes: dict[str, Any], said: str) -> None:
    host.programs.answers["tradingbot status"] = told(**changes)
    assert host.problems() == [said]


def test_a_newer_schema_that_this_version_can_live_with(host: Host) -> None:
    host.programs.answers["tradingbot status"] = told(schema={"current": "0004"})
    report = host.look()
    assert report["healthy"]
    assert "0004, newer, fits this version" in stack_table.health_text(report)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((0, f"notAfter={enddate(13)}\n", ""), "it ends in 13 days, 14 are wanted"),
        ((1, "", "Could not open file\nunable to load certificate\n"), "cannot be read: unable to load certificate"),
        ((127, "", "openssl is not installed"), "cannot be read: openssl is not installed"),
        ((0, "notAfter=soon\n", ""), "cannot be read: openssl said 'notAfter=soon'"),
    ],
)
def test_certificate(host: Host, answer: tuple[int, str, str], said: str) -> None:
    host.programs.answers["openssl"] = answer
    (found,) = host.problems()
    assert found.startswith("certificate: ")
    assert said in found


def test_a_certificate_that_has_ended(host: Host) -> None:
    host.programs.answers["openssl"] = (0, f"notAfter={enddate(-2)}\n", "")
    (found,) = host.problems()
    assert found.startswith("certificate: it ended on 2")


def test_a_real_certificate(tmp_path: Path) -> None:
    path = tmp_path / "fullchain.pem"
    key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    command = [*key, "-subj", "/CN=test", "-keyout", str(tmp_path / "key"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    found = stack_health.certificate(stack_health.Settings(certificate=str(path)), tmp_path)
    assert found is not None
    assert found["days"] in (29, 30)
    path.write_text("broken")
    found = stack_health.certificate(stack_health.Settings(certificate=str(path)), tmp_path)
    assert found is not None
    assert found["days"] is None
    assert found["error"]


def test_without_tls_there_is_no_certificate(host: Host) -> None:
    (host.folder / "nginx/conf/nginx.conf").write_text(f"# configuration {MARK}\nserver {{\n  listen 8080; # ssl\n}}\n")
    report = host.look()
    assert report["tls"] is None
    assert report["healthy"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((0, f"{'cd' * 32} backend-blue 0\n", ""), "nginx: it runs an older configuration than the one on disk"),
        (
            (0, f"{MARK} backend-green 0\n", ""),
            "nginx: it sends requests to backend-green, and live/upstream.conf says",
        ),
        ((22, "", "curl: (22) 404"), "nginx: it does not say what it runs: curl: (22) 404"),
        ((0, MARK, ""), f"nginx: it does not say what it runs: {MARK}"),
    ],
)
def test_what_nginx_runs(host: Host, answer: tuple[int, str, str], said: str) -> None:
    host.programs.answers["curl"] = answer
    (found,) = host.problems()
    assert found.startswith(said)


def test_maintenance_is_told_and_is_no_problem(host: Host) -> None:
    host.programs.answers["curl"] = (0, f"{MARK} backend-blue 1\n", "")
    report = host.look()
    assert report["healthy"]
    assert "maintenance     ON" in stack_table.health_text(report)


def test_what_clients_run_into(host: Host) -> None:
    host.web = (502, "<html>")
    why = "https://127.0.0.1:443/api/v1/health gives no health of the backend: it answered 502 Bad Gateway"
    assert host.problems() == [f"web server: {why}"]


@pytest.mark.parametrize(
    ("ports", "address"),
    [
        ({"8443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "443"}]}, ("https", "127.0.0.1", 443)),
        ({"8443/tcp": [{"HostIp": "10.0.0.5", "HostPort": "8443"}]}, ("https", "10.0.0.5", 8443)),
        ({"8443/tcp": [{"HostIp": "::", "HostPort": "443"}]}, ("https", "::1", 443)),
        ({"8080/tcp": [{"HostIp": "", "HostPort": "80"}], "8443/tcp": None}, ("http", "127.0.0.1", 80)),
        ({}, None),
    ],
)
def test_where_the_web_server_is_published(ports: dict[str, Any], address: tuple[str, str, int] | None) -> None:
    assert stack_health.web_address(container("nginx", ports=ports)) == address


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("server_name _;", "localhost"),
        ("server_name ~^x$ a.example;", "a.example"),
        ("server_name *.b.example;", "www.b.example"),
        ("server_name .c.example;", "c.example"),
        ("", "localhost"),
    ],
)
def test_the_name_that_is_asked_for(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "nginx/conf").mkdir(parents=True)
    (tmp_path / "nginx/conf/nginx.conf").write_text(f"    {line}\n")
    assert stack_health.server_name(tmp_path) == name


def test_a_request_shows_the_name_and_tells_the_status() -> None:
    seen = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Host"]))
            self.send_response(200 if self.path == "/well" else 503)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with socketserver.TCPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        assert stack_health._ask("http", "127.0.0.1", port, "/well", "a.example", 5) == (200, "{}")
        assert stack_health._ask("http", "127.0.0.1", port, "/ill", "a.example", 5) == (503, "{}")
        server.shutdown()
    assert seen == [("/well", "a.example"), ("/ill", "a.example")]
    status, why = stack_health._ask("http", "127.0.0.1", port, "/well", "a.example", 5)
    assert status == 0
    assert "refused" in why


@pytest.mark.parametrize(
    ("status", "state", "synchronised"), [(0x40, 5, False), (0x2001, 0, True), (0, 0, True), (0, -1, None)]
)
def test_the_kernel_says_whether_the_clock_is_kept(status: int, state: int, synchronised: bool | None) -> None:
    def adjtimex(buffer: Any) -> int:
        assert buffer.raw[:4] == b"\0\0\0\0", "modes: the kernel is asked, not told"
        buffer[40:44] = status.to_bytes(4, "little")
        return state

    assert stack_health.clock_is_synchronised(SimpleNamespace(adjtimex=adjtimex)) is synchronised


def test_a_system_without_that_call() -> None:
    assert stack_health.clock_is_synchronised(SimpleNamespace()) is None


def host_of(**clock: Any) -> dict[str, Any]:
    disk = {"path": "/opt", "free_mb": 1, "free_percent": 50, "free_inodes_percent": 50}
    return {
        "disks": [disk],
        "memory": {"total_mb": 100, "available_mb": 50, "available_percent": 50},
        "clock": {"synchronised": True, "offset_seconds": None} | clock,
    }


@pytest.mark.parametrize(
    ("clock", "thresholds", "said"),
    [
        ({"synchronised": False}, {}, ["nothing keeps it in time"]),
        ({"synchronised": False}, {"clock_synchronised": False}, []),
        ({"synchronised": None}, {}, []),
        ({"offset_seconds": 30.0}, {}, []),
        ({"offset_seconds": -31.5}, {}, ["it is -31.5 s off the controller's, 30 s are allowed"]),
    ],
)
def test_clock(clock: dict[str, Any], thresholds: dict[str, Any], said: list[str]) -> None:
    found = list(stack_health.host_problems(host_of(**clock), stack_health.Settings(thresholds=thresholds)))
    assert [one["what"] for one in found] == ["clock"] * len(said)
    assert all(text in one["why"] for text, one in zip(said, found, strict=True))


def test_disk_inodes_and_memory() -> None:
    host = host_of()
    host["disks"][0] |= {"free_percent": 9.9, "free_inodes_percent": 0}
    host["memory"]["available_percent"] = 4.9
    found = list(stack_health.host_problems(host, stack_health.Settings()))
    assert [one["why"].split(",")[0] for one in found] == [
        "9.9% of its space are free",
        "0% of its inodes are free",
        "4.9% (50 MiB) are available",
    ]


def test_disks_of_one_file_system_count_once(tmp_path: Path) -> None:
    (found,) = stack_health.disks([str(tmp_path), str(tmp_path / "not" / "yet")])
    assert found["path"] == str(tmp_path)
    assert 0 <= found["free_percent"] <= 100


def test_memory_of_proc(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 4096000 kB\nMemFree: 1 kB\nMemAvailable: 1024000 kB\n")
    assert stack_health.memory(tmp_path) == {"total_mb": 4000, "available_mb": 1000, "available_percent": 25.0}


def test_the_newest_backup_counts(host: Host) -> None:
    folder = host.folder / "backups" / "daily"
    folder.mkdir(parents=True)
    assert host.look()["backup"] is None
    for name, hours in (("old", 100), ("new", 27.5)):
        (folder / name).write_text("")
        os.utime(folder / name, (time.time() - hours * 3600,) * 2)
    assert host.problems() == ["backup: the newest one is 27.5 hours old, up to 26 are well"]
    (folder / "today").write_text("")
    assert host.look()["backup"] == {"path": str(folder / "today"), "hours": 0.0}


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "echo out; exit 3"], 3, ""),
        (["no-such-program"], 127, "no-such-program is not installed"),
        (["sleep", "5"], 124, "no answer within 0.2 s"),
        (["/"], 126, "Permission denied"),
    ],
)
def test_programs_that_fail_are_answers(command: list[str], code: int, said: str) -> None:
    found = stack_health.run(command, 0.2)
    assert found[0] == code
    assert said in found[2]


def test_the_table_reads_well(host: Host) -> None:
    host.replace("redis", container("redis", "exited", "", code=1))
    report = host.look()
    text = stack_table.full_text(report)
    lines = text.splitlines()
    assert lines[0] == "SERVICE         STATE    HEALTH   RESTARTS  VERSION  MEMORY OF LIMIT"
    assert "backend-blue *  running  healthy  0         1        100 of 512 MiB (20%)" in lines
    assert "redis           exited   -        0         1        -" in lines
    assert "requests go to  backend-blue, release 0.3.0-1" in lines
    assert lines[-2] == "1 problem found."
    assert lines[-1].startswith("  1. redis: it is exited, exit code 1. Way out: ")
    assert not any(line != line.rstrip() for line in lines), "a blank at the end keeps Ansible from printing a block"


def test_a_table_of_nothing_says_so() -> None:
    assert stack_table.services_text([]) == "no container of the stack is on this host"
    assert stack_table.table([]) == ""


@pytest.fixture
def engine_socket(tmp_path: Path) -> Iterator[str]:
    """An engine on a socket that knows one container and one of `docker compose run`."""
    one_off = container("migrate", labels={"com.docker.compose.oneoff": "True"})
    known = {one["Id"]: one for one in (container("redis"), one_off)}

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().decode().split()[1]
            while self.rfile.readline().strip():
                pass
            body = json.dumps(
                [{"Id": name} for name in [*known, "gone"]] if "json?all" in path else known.get(path.split("/")[2])
            )
            status = "404 Not Found" if "gone" in path else "200 OK"
            self.wfile.write(
                f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )

    path = str(tmp_path / "docker.sock")
    with socketserver.ThreadingUnixStreamServer(path, Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_the_engine_is_asked_over_its_socket(engine_socket: str) -> None:
    found = stack_services.containers("tradingbot", engine_socket)
    assert found is not None
    assert [stack_services.service_of(one) for one in found] == ["redis"]
    everything = stack_services.containers("tradingbot", engine_socket, one_offs=True)
    assert everything is not None
    assert len(everything) == 2
    assert stack_services.containers("tradingbot", "/nowhere") is None


def test_the_module_runs_by_itself_and_changes_nothing(tmp_path: Path) -> None:
    arguments = {
        "project_dir": str(tmp_path),
        "services": ["postgres"],
        "thresholds": {"disk_free_percent": 0, "clock_synchronised": False},
        "project": f"no-such-project-{os.getpid()}",
        "_ansible_check_mode": True,
        "_ansible_remote_tmp": "/tmp",
    }
    program = (
        "import json, sys\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.tradingbot.stack.plugins.modules import stack_health\n"
        "with patch_module_args(json.loads(sys.argv[1])):\n"
        "    stack_health.main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT / ".cache" / "collections")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    result = json.loads(run.stdout)
    assert result["changed"] is False
    assert result["healthy"] is False
    assert result["sentences"]
    assert result["table"].splitlines()[0] == "no container of the stack is on this host"
    assert list(tmp_path.iterdir()) == []


def test_thresholds_are_the_same_everywhere() -> None:
    """The module's documentation and the role's variable name those of the check, with the same defaults."""
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]["thresholds"]["suboptions"]
    assert {name: option["default"] for name, option in documented.items()} == stack_health.THRESHOLDS
    specification = yaml.safe_load((ROOT / "roles/docker_host/meta/argument_specs.yml").read_text())["argument_specs"]
    options = specification["main"]["options"]["docker_host_health_thresholds"]["options"]
    assert {name: option["type"] for name, option in options.items()} == {
        name: option["type"] for name, option in documented.items()
    }
