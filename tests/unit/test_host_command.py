# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The host's command `tradingbot`: what it runs, what it refuses, with which exit code."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.module_utils import (
    container_failure,
    stack_health,
    stack_network,
    stack_services,
    target,
)
from ansible_collections.tradingbot.stack.plugins.module_utils.host_command import (
    build,
    clean,
    cli,
    containers,
    maintenance,
    rules,
    stack,
    versions,
)

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "docker_host" / "files"
VERBS = re.split(r"\s+", "up down restart logs ps build clean health version psql redis-cli exec maintenance rules")
IMAGE = "tradingbot-backend:0.3.0-0123456789ab"
OLD_IMAGE = "tradingbot-backend:0.2.0-0123456789ab"


# The nginx that serves while its own container is replaced.
SECOND = {"Id": "id-second", "Name": "/tradingbot-nginx-second"}


def container(service: str, state: str = "running", **more: Any) -> dict[str, Any]:
    """What the engine says of a container."""
    labels = {"com.docker.compose.project": "tradingbot", "com.docker.compose.service": service}
    labels |= {"com.docker.compose.oneoff": "True"} if more.get("one_off") else {}
    return {
        "Id": f"id-{service}",
        "Name": f"/tradingbot-{service}-1",
        "ImageID": more.get("image_id", f"sha-{service}"),
        "State": {"Status": state, "Running": state == "running", "Health": {"Status": "healthy"}},
        "HostConfig": {"Memory": 0},
        "Config": {"Image": more.get("image", f"{service}:1"), "Labels": labels},
        "SizeRw": 2_000_000,
    }


class Host:
    """A made-up host with a stack, and all that the command does to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("backend/releases", "nginx/live", "secrets"):
            (folder / name).mkdir(parents=True)
        self.record()
        self.release("0.3.0-1", IMAGE)
        (folder / "nginx/live/upstream.conf").write_text('map "" $active_backend { default backend-blue; }\n')
        (folder / "nginx/live/maintenance.conf").write_text('map "" $maintenance { default 0; }\n')
        (folder / "secrets/redis_url").write_text("redis://tradingbot:p%2Fw%40d@redis:6379/0\n")
        (folder / "secrets/database_url").write_text("postgresql://trader:p%2Fw%40d@postgres:5432/trades\n")
        self.settings = {
            "project_dir": str(folder),
            "project": "tradingbot",
            "services": ["postgres", "redis", "backend", "nginx"],
            "firewall": True,
            "thresholds": {},
        }
        self.settings_file = folder / "command.json"
        self.settings_file.write_text(json.dumps(self.settings))
        self.containers = [container(name) for name in ("postgres", "redis", "backend-blue", "worker", "nginx")]
        self.images: list[dict[str, Any]] = []
        self.away = False
        self.live_restore = True
        self.called: list[list[str]] = []
        self.codes: dict[str, int] = {}
        self.became: list[list[str]] = []
        self.ran: list[list[str]] = []
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.lock = folder / "deploy.lock"
        monkeypatch.setattr(target, "docker_get", self.get)
        monkeypatch.setattr(stack.read_settings, "__defaults__", (self.settings_file,))
        monkeypatch.setattr(stack_services.deploy_lock, "__defaults__", (self.lock, None))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "execvp", self.become)
        monkeypatch.setattr(subprocess, "call", self.call)
        for module in (stack_health, clean, build, rules):
            monkeypatch.setattr(module, "run", self.run)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        network: dict[str, Any] = {"forwarding": {}, "firewall": "", "rules": [], "flushed_by": [], "outside": None}
        monkeypatch.setattr(stack_network, "look", lambda *_: dict(network))
        monkeypatch.setattr(stack_network, "handover", lambda: "")
        monkeypatch.setattr(stack_health, "log_problems", lambda *_: [])

    def record(self, **changes: Any) -> None:
        stored = {"active": "blue", "slots": {"blue": "0.3.0-1", "green": None}, "worker": "0.3.0-1"}
        (self.folder / "backend/slots.json").write_text(json.dumps(stored | changes))

    def release(self, name: str, image: str, **more: Any) -> None:
        told = {"version": name.split("-")[0], "image": image, "schema_head": "0003", "used": 1777593600.5}
        (self.folder / f"backend/releases/{name}.json").write_text(json.dumps(told | more))

    def deploying(self) -> None:
        holder = {"who": "root@controller", "purpose": "deploy 0.4.0", "since": time.time() - 5, "valid_seconds": 3600}
        self.lock.write_text(json.dumps(holder))

    def get(self, resource: str, path: str = "", timeout: float = 5.0) -> Any:
        if self.away:
            return None
        if resource.startswith("/containers/json"):
            return self.containers
        if resource == "/info":
            return {"LiveRestoreEnabled": self.live_restore}
        if resource == "/images/json":
            return self.images
        if resource.startswith("/images/"):
            return {"Size": 123_400_000}
        return next((one for one in self.containers if one["Id"] == resource.split("/")[2]), None)

    def call(self, command: list[str]) -> int:
        self.called.append(command)
        return next((code for word, code in self.codes.items() if word in command), 0)

    def become(self, _: str, command: list[str]) -> None:
        self.became.append(command)
        raise SystemExit(0)

    def run(self, command: list[str], timeout: float) -> tuple[int, str, str]:
        self.ran.append(command)
        line = " ".join(command)
        return next((answer for words, answer in self.answers.items() if words in line), (0, "", ""))

    def compose(self) -> list[str]:
        """The commands of Compose that were run, from their verb on."""
        prefix = ["docker", "compose", "--ansi", "never", "--project-directory", str(self.folder)]
        assert all(command[:6] == prefix for command in self.called)
        return [" ".join(command[6:]) for command in self.called]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def do(*arguments: str) -> int:
    """Run the command; a program that it becomes counts as 0."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


# Help and wrong use.


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_exit_codes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert do(verb, "--help") == 0
    text = capsys.readouterr().out
    assert f"usage: tradingbot {verb}" in text
    assert f"example:\n  tradingbot {verb}" in text
    assert "exit codes:" in text


def test_without_arguments_it_shows_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert do() == 2
    text = capsys.readouterr().out
    assert [verb for verb in VERBS if not re.search(rf"^    {verb}\b", text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["maintenance"],
        ["maintenance", "maybe"],
        ["logs", "--tail", "x"],
        ["clean", "all"],
        ["ps", "--yaml"],
    ],
)
def test_wrong_use(host: Host, arguments: list[str]) -> None:
    assert do(*arguments) == 2
    assert host.called == host.became == host.ran == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "maintenance"])
def test_only_root_may(
    host: Host, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert do(verb) == 2
    assert f"run it with sudo: `sudo tradingbot {verb} …`" in capsys.readouterr().err
    assert host.called == host.became == []


@pytest.mark.parametrize("text", [None, "", "{}", '{"services": 1}'])
def test_settings_that_cannot_be_read(host: Host, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    host.settings_file.unlink()
    if text is not None:
        host.settings_file.write_text(text)
    assert do("ps") == 1
    said = capsys.readouterr().err
    assert str(host.settings_file) in said
    assert "Way out: run site.yml" in said


def test_without_an_engine(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.away = True
    for arguments in (["ps"], ["psql"], ["clean"], ["maintenance", "on"], ["version"]):
        assert do(*arguments) == 1
        assert "Docker: no engine answers" in capsys.readouterr().err
    assert do("health") == 1
    assert "Docker: no engine answers" in capsys.readouterr().out


def test_without_docker(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(command: list[str]) -> int:
        raise FileNotFoundError(2, "No such file or directory", command[0])

    monkeypatch.setattr(subprocess, "call", missing)
    assert do("up") == 1
    assert "docker: No such file or directory\n  Way out: install Docker" in capsys.readouterr().err


# Starting and stopping.


def test_up_names_each_service_and_the_active_slot(host: Host) -> None:
    host.record(slots={"blue": "0.3.0-1", "green": "0.2.0-1"})
    assert do("up") == 0
    options = "--detach --no-deps --quiet-pull --wait --wait-timeout 120"
    assert host.compose() == [f"up {options} postgres redis backend-blue worker nginx"]


def test_backend_is_the_active_slot(host: Host) -> None:
    host.record(active="green", slots={"blue": None, "green": "0.3.0-1"})
    assert do("restart", "backend", "worker", "backend") == 0
    assert host.compose()[0] == "restart --no-deps backend-green worker"
    assert host.compose()[1].endswith("--wait-timeout 120 backend-green worker")


def test_down_stops_stores_last_and_removes_nothing(host: Host) -> None:
    host.containers.append(container("backend-green"))
    assert do("down") == 0
    assert host.compose() == ["stop backend-blue worker nginx backend-green", "stop postgres redis"]
    host.called.clear()
    assert do("down", "redis") == 0
    assert host.compose() == ["stop redis"]


def test_down_stops_a_second_nginx_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interrupted replacement leaves it; packets are not led to it any more."""
    ended: list[bool] = []
    host.containers += [container("nginx", one_off=True) | SECOND, container("nginx", one_off=True) | {"Id": "id-run"}]
    monkeypatch.setattr(stack_network, "handover", lambda: "172.20.0.9")
    monkeypatch.setattr(stack_network, "end_handover", lambda: ended.append(True))
    assert do("down", "redis") == 0
    host.called.clear()
    assert do("down", "nginx") == 0
    assert [command[1:] for command in host.called[1:]] == [["stop", "id-second"], ["rm", "--force", "id-second"]]
    assert ended == [True]


@pytest.mark.parametrize("verb", ["up", "restart"])
def test_a_started_nginx_gets_what_was_led_to_one_that_is_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(stack_network, "handover", lambda: "172.20.0.9")
    monkeypatch.setattr(stack_network, "end_handover", lambda: ended.append(True))
    assert do(verb, "redis") == 0
    assert ended == []
    assert do(verb, "nginx") == 0
    assert ended == [True]


@pytest.mark.parametrize(("verb", "fails"), [("up", "up"), ("down", "stop"), ("restart", "restart"), ("restart", "up")])
def test_what_compose_cannot_do_is_a_failure(host: Host, verb: str, fails: str) -> None:
    host.codes[fails] = 17
    assert do(verb, "redis") == 1


def test_a_service_that_does_not_come_up_says_why(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.codes["up"] = 1
    host.containers[1]["State"] |= {"Health": {"Status": "unhealthy", "Log": [{"ExitCode": 1, "Output": "no PONG"}]}}
    monkeypatch.setattr(container_failure, "end_of_log", lambda identity: f"the log of {identity}")
    assert do("up") == 1
    said = capsys.readouterr().err
    assert said.startswith("redis is not up.\nredis is running.\n")
    assert "exit code 1 and said: no PONG\nThe end of its log:\nthe log of id-redis" in said
    assert "postgres is not up" not in said


@pytest.mark.parametrize("verb", ["up", "down", "restart", "logs"])
def test_unknown_services_are_refused_with_the_known_ones(
    host: Host, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert do(verb, "redis", "mongo", "mysql") == 2
    said = capsys.readouterr().err
    assert "mongo, mysql: not a service of this host" in said
    assert "postgres, redis, backend, worker, nginx, backend-blue, backend-green" in said
    assert host.called == host.became == []


@pytest.mark.parametrize("text", [None, "{", '{"active": null, "slots": {}, "worker": null}'])
def test_a_backend_without_an_active_slot(host: Host, text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = host.folder / "backend/slots.json"
    path.unlink()
    if text:
        path.write_text(text)
    assert do("restart", "backend") == 1
    assert "run site.yml on the controller" in capsys.readouterr().err
    assert do("restart", "redis") == 0


@pytest.mark.parametrize("arguments", [["up"], ["down", "worker"], ["restart", "backend"], ["clean"]])
def test_nothing_of_the_backend_is_touched_during_a_deploy(
    host: Host, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.deploying()
    assert do(*arguments) == 3
    said = capsys.readouterr().err
    assert "root@controller has been at it since" in said
    assert "deploy 0.4.0" in said
    assert ("--ignore-lock" in said) == (arguments != ["clean"]), "clean has no such option"
    assert host.called == host.ran == []
    assert do("restart", "redis") == 0
    if arguments != ["clean"]:
        assert do(*arguments, "--ignore-lock") == 0


# Logs, and programs in containers.


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl that prints a line of nginx's; the file has its arguments."""
    program = tmp_path / "programs" / "journalctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho \'{{"status":200}}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


def test_logs_on_a_terminal(host: Host, monkeypatch: pytest.MonkeyPatch, journal: Path) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert do("logs", "-f", "--tail", "7", "--since", "10m", "backend") == 0
    expected = "logs --tail 7 --follow --since 10m backend-blue"
    assert host.became[0] == ["docker", "compose", "--project-directory", str(host.folder), *expected.split()]
    assert not journal.exists()
    assert do("logs") == 0
    assert " ".join(host.called[0][4:]) == "logs --tail 100 postgres redis backend-blue worker nginx"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], "--lines=100"),
        (["--tail", "all", "--since", "1h30m"], "--lines=all --since=-1h30m"),
        (["--since", "2026-05-01T08:00:00Z"], "--lines=100 --since=2026-05-01 08:00:00 UTC"),
        (["--since", "1732700000"], "--lines=100 --since=@1732700000"),
        (["--since", "1732700000.5"], "--lines=100 --since=@1732700000.5"),
        (["--follow"], "--lines=100 --follow"),
    ],
)
def test_nginx_logs_into_the_journal_of_the_host(
    host: Host, monkeypatch: pytest.MonkeyPatch, journal: Path, arguments: list[str], asked: str
) -> None:
    monkeypatch.setattr(containers, "_plainly", lambda _: wait_for(journal))
    assert do("logs", *arguments, "nginx") == 0
    names = "--namespace=tradingbot --identifier=tradingbot_nginx"
    words = f"{names} --quiet --no-pager --output=cat {asked}"
    assert journal.read_text().split() == words.split()


def wait_for(path: Path) -> int:
    """Wait until a file is there, as who follows a log waits for its lines."""
    until = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    return 0


def test_lines_of_the_journal_look_like_those_of_compose(
    host: Host, monkeypatch: pytest.MonkeyPatch, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(containers, "_plainly", lambda _: 3)
    assert do("logs", "nginx") == 3
    assert capsys.readouterr().out == 'nginx-1  | {"status":200}\n'


def test_a_journal_that_cannot_be_read_is_a_failure(
    host: Host, monkeypatch: pytest.MonkeyPatch, journal: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(containers, "_plainly", lambda _: 0)
    (tmp_path / "programs" / "journalctl").write_text("#!/bin/sh\nexit 1\n")
    assert do("logs", "nginx") == 1


def test_logs_for_a_file_are_plain(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\nprintf '\\033[2Kredis-1  | one\\n\\033[2Kredis-1  | two\\n'\nexit 7\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    assert do("logs", "redis") == 7
    assert capsys.readouterr().out == "redis-1  | one\nredis-1  | two\n"
    docker.unlink()
    monkeypatch.setenv("PATH", str(docker.parent))
    assert do("logs", "redis") == 1
    assert "docker: No such file or directory" in capsys.readouterr().err


def test_exec_takes_a_service_or_the_worker(host: Host) -> None:
    for arguments, expected in (
        (["redis", "redis-cli", "--version"], "id-redis redis-cli --version"),
        (["backend", "env"], "id-backend-blue env"),
        (["tradingbot", "halt", "--help"], "id-worker tradingbot halt --help"),
    ):
        host.became.clear()
        assert do("exec", *arguments) == 0
        assert host.became == [["docker", "exec", "--interactive", *expected.split()]]


def test_exec_needs_a_program_and_a_container_that_runs(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["redis"]):
        assert do("exec", *arguments) == 2
    host.containers = [container("redis", "exited")]
    assert do("exec", "redis", "env") == 1
    assert "redis: it does not run\n  Way out: `tradingbot up redis`" in capsys.readouterr().err
    assert host.became == []


def test_a_terminal_is_passed_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True)
    assert do("psql") == 0
    assert host.became[0][:4] == ["docker", "exec", "--interactive", "--tty"]


def test_psql_passes_everything_on(host: Host) -> None:
    assert do("psql", "-c", "select 1", "--help") == 0
    expected = ["docker", "exec", "--interactive", "--env", "PGDATABASE=trades", "id-postgres"]
    assert host.became == [[*expected, "psql", "--username=postgres", "-c", "select 1", "--help"]]


def test_psql_on_a_host_of_the_database_alone(host: Host) -> None:
    host.settings_file.write_text(json.dumps(host.settings | {"services": ["postgres"]}))
    (host.folder / "secrets/database_url").unlink()
    assert do("psql") == 0
    assert host.became == [["docker", "exec", "--interactive", "id-postgres", "psql", "--username=postgres"]]


def test_the_password_of_redis_is_in_no_command_line(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDISCLI_AUTH", raising=False)
    assert do("redis-cli", "--scan", "-n", "0") == 0
    expected = "docker exec --interactive --env REDISCLI_AUTH id-redis redis-cli --user tradingbot --no-auth-warning"
    assert host.became == [[*expected.split(), "--scan", "-n", "0"]]
    assert os.environ["REDISCLI_AUTH"] == "p/w@d"


def test_a_host_without_the_password_of_redis(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.folder / "secrets/redis_url").unlink()
    assert do("redis-cli", "ping") == 1
    assert "secrets/redis_url: it cannot be read (No such file or directory)" in capsys.readouterr().err


# Looking.


def test_ps(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.containers[1] = container("redis", "exited")
    assert do("ps") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["backend-blue", "*", "running", "healthy"]
    assert [line.split()[1] for line in lines if line.startswith("redis")] == ["exited"]
    assert do("ps", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_health_says_by_its_exit_code_whether_all_is_well(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = stack_health.look(stack.read_settings().health_settings())
    problem = {"what": "redis", "why": "it is exited", "fix": "start it"}
    for problems in ([], [problem]):
        report = real | {"problems": problems, "healthy": not problems}
        monkeypatch.setattr(stack_health, "look", lambda _, report=report: report)
        assert do("health") == len(problems)
        assert ("redis: it is exited. Way out: start it" in capsys.readouterr().out) == bool(problems)
        assert do("health", "--json") == len(problems)
        assert json.loads(capsys.readouterr().out)["problems"] == problems


def test_the_health_check_gets_the_host_s_settings(host: Host) -> None:
    host.settings_file.write_text(json.dumps(host.settings | {"thresholds": {"tls_days": 30}}))
    settings = stack.read_settings().health_settings()
    assert settings.limit("tls_days") == 30
    assert settings.limit("queue_depth") == 1000
    assert settings.services == ["postgres", "redis", "backend", "worker", "nginx"]


def test_version_shows_what_runs_is_kept_and_was_done(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.release("0.2.0-1", OLD_IMAGE, used=1775001600, schema_head="0002")
    (host.folder / "backend/releases/0.1.0-1.json").write_text("{")
    entry = {"action": "deploy", "from": None, "seconds": 21.5, "result": "ok", "who": "root@controller"}
    lines = [json.dumps(entry | {"time": f"2026-05-0{day}T00:00:00Z", "to": f"0.{day}.0"}) for day in range(1, 8)]
    (host.folder / "backend/deploys.jsonl").write_text("\n".join([*lines[:5], '{"cut', "[]", *lines[5:]]) + "\n")
    assert do("version") == 0
    text = capsys.readouterr().out
    assert re.search(r"^  0\.3\.0-1 +0\.3\.0 +0003 +2026-05-01T00:00:00Z +backend-blue, worker$", text, re.MULTILINE)
    assert re.search(r"^  0\.2\.0-1 +0\.2\.0 +0002 +2026-04-01T00:00:00Z$", text, re.MULTILINE)
    assert "0.1.0-1.json cannot be read" in text
    shown = re.findall(
        r"^  2026-05-0(\d)T00:00:00Z  deploy  -     0\.\d\.0  21\.5     ok      root@controller$", text, re.MULTILINE
    )
    assert shown == ["7", "6", "5", "4", "3"]
    assert do("version", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["to"] for one in found["deploys"]] == ["0.7.0", "0.6.0", "0.5.0", "0.4.0", "0.3.0"]
    assert found["active"] == "blue"
    assert {one["release"] for one in found["releases"]} == {"0.3.0-1", "0.2.0-1", "0.1.0-1"}


def test_version_of_a_host_without_deploys(tmp_path: Path) -> None:
    assert versions.deploys(tmp_path / "none") == []
    assert versions.releases(tmp_path / "none") == []


# Cleaning.


def image(name: str, identity: str = "sha-x") -> dict[str, Any]:
    return {"Id": identity, "RepoTags": [name], "Size": 100_000_000}


def removed(host: Host) -> list[str]:
    return [" ".join(command) for command in host.ran if command[1] in ("rm", "rmi")]


def test_clean_names_and_removes_what_nobody_needs(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.containers += [
        container("backend-green", "exited", image_id="sha-old"),
        container("migrate", "exited", one_off=True),
    ]
    host.release("0.2.0-1", OLD_IMAGE)
    host.images = [
        image(IMAGE, "sha-backend-blue"),
        image(OLD_IMAGE, "sha-kept"),
        image("tradingbot-backend:0.1.0-000000000000", "sha-old"),
        image("registry:5000/tradingbot-backend:0.1.0"),
        image("postgres:15-alpine"),
        {"Id": "sha-dangling", "RepoTags": None, "Size": 1},
    ]
    assert do("clean", "--yes") == 0
    assert removed(host) == [
        "docker rm id-backend-green",
        "docker rm id-migrate",
        "docker rmi tradingbot-backend:0.1.0-000000000000",
    ]
    text = capsys.readouterr().out
    assert re.search(r"^container +tradingbot-backend-green-1 +2\.0 MB$", text, re.MULTILINE)
    assert re.search(r"^image +tradingbot-backend:0\.1\.0-000000000000 +100\.0 MB$", text, re.MULTILINE)


PULLED = "registry.example:5000/team/bot"
DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize("source", [f"{PULLED}:0.3.0", PULLED, PULLED + DIGEST, f"{PULLED}:0.3.0{DIGEST}"])
def test_clean_knows_pulled_images_by_their_names_in_the_registry(host: Host, source: str) -> None:
    host.release("0.3.0-1", IMAGE, source=source)
    host.images = [
        {"Id": "sha-kept", "RepoTags": [f"{PULLED}:0.3.0", IMAGE], "RepoDigests": [PULLED + DIGEST]},
        {"Id": "sha-old", "RepoTags": [f"{PULLED}:0.2.0", OLD_IMAGE], "RepoDigests": [f"{PULLED}@sha256:1"]},
        {"Id": "sha-digest", "RepoTags": ["tradingbot-backend:0.1.0-1"], "RepoDigests": [f"{PULLED}@sha256:2"]},
        {"Id": "sha-other", "RepoTags": ["registry.example:5000/team/other:1", "registry.example:5000/team:1"]},
        {"Id": "sha-nameless", "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]},
    ]
    assert do("clean", "--yes") == 0
    assert sorted(removed(host)) == [
        f"docker rmi {PULLED}:0.2.0",
        f"docker rmi {PULLED}@sha256:2",
        "docker rmi tradingbot-backend:0.1.0-1",
        f"docker rmi {OLD_IMAGE}",
    ]


def test_clean_finds_what_docker_hub_is_asked_for_without_saying_so(host: Host) -> None:
    host.release("0.3.0-1", IMAGE, source="docker.io/somebody/bot:0.3.0")
    host.images = [image("somebody/bot:0.3.0", "sha-kept"), image("somebody/bot:0.2.0", "sha-old")]
    host.images[0]["RepoTags"].append(IMAGE)
    assert do("clean", "--yes") == 0
    assert removed(host) == ["docker rmi somebody/bot:0.2.0"]


def test_clean_keeps_images_of_any_container(host: Host) -> None:
    host.containers.append(container("other", "running", image_id="sha-used"))
    host.images = [image("tradingbot-backend:try", "sha-used"), image("tradingbot-backend:left", "sha-left")]
    assert do("clean", "--yes") == 0
    assert removed(host) == ["docker rmi tradingbot-backend:left"]


@pytest.mark.parametrize("state", ["running", "restarting", "paused", "removing"])
def test_clean_touches_no_container_that_is_not_stopped(
    host: Host, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.containers = [container("redis", state)]
    assert do("clean", "--yes") == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"
    assert removed(host) == []


def test_clean_never_forces_and_never_takes_volumes() -> None:
    for kind, verb in (("container", "rm"), ("image", "rmi")):
        assert clean.Item(kind, "name", "identity", 0).command == ["docker", verb, "identity"]


def test_clean_needs_somebody_to_ask(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.containers.append(container("backend-green", "exited"))
    assert do("clean") == 2
    assert "there is no terminal to ask on, and nothing was removed\n  Way out: --yes" in capsys.readouterr().err
    assert removed(host) == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("YES", 0), ("", 1), ("n", 1), ("yup", 1), (None, 1)])
def test_clean_asks(host: Host, monkeypatch: pytest.MonkeyPatch, answer: str | None, code: int) -> None:
    host.containers.append(container("backend-green", "exited"))

    def say(_: str) -> str:
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", say)
    assert do("clean") == code
    assert removed(host) == ["docker rm id-backend-green"] * (code == 0)


def test_clean_looks_again_when_it_was_answered(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question may stay open for as long as a deploy takes."""
    new = "tradingbot-backend:0.4.0-0123456789ab"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for meanwhile, code, gone in (
        (host.deploying, 3, []),
        (lambda: host.release("0.4.0-1", new), 0, ["docker rmi tradingbot-backend:left"]),
    ):
        host.images = [image(new, "sha-new"), image("tradingbot-backend:left", "sha-left")]
        monkeypatch.setattr("builtins.input", lambda _, happens=meanwhile: happens() or "y")
        assert do("clean") == code
        assert removed(host) == gone
        host.lock.unlink(missing_ok=True)


def test_clean_tells_what_docker_refuses(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.containers += [container("backend-green", "exited"), container("migrate", "dead", one_off=True)]
    host.answers["rm id-backend-green"] = (1, "", "Error: it is in use\n")
    assert do("clean", "--yes") == 1
    told = capsys.readouterr()
    assert "tradingbot-backend-green-1 stays: Error: it is in use" in told.err
    assert "removed container tradingbot-migrate-1" in told.out


@pytest.mark.parametrize(
    "harm", ["no record", "broken record", "broken release", "release without image", "lost release"]
)
def test_clean_removes_nothing_unless_it_knows_what_is_needed(
    host: Host, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.images = [image("tradingbot-backend:left", "sha-left")]
    releases = host.folder / "backend/releases"
    do_harm: dict[str, Callable[[], Any]] = {
        "no record": (host.folder / "backend/slots.json").unlink,
        "broken record": lambda: (host.folder / "backend/slots.json").write_text("{"),
        "broken release": lambda: (releases / "0.2.0-1.json").write_text("{"),
        "release without image": lambda: (releases / "0.2.0-1.json").write_text('{"version": "0.2.0"}'),
        "lost release": (releases / "0.3.0-1.json").unlink,
    }
    do_harm[harm]()
    assert do("clean", "--yes") == 1
    assert "it is not known which images are needed" in capsys.readouterr().err
    assert removed(host) == []


# Maintenance.


def written(host: Host) -> str:
    return (host.folder / "nginx/live/maintenance.conf").read_text()


def test_maintenance_on_a_full_disk_is_refused_with_the_fix_and_nothing_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = written(host)
    monkeypatch.setattr(os, "fsync", full)
    assert do("maintenance", "on") == 1
    path = host.folder / "nginx/live/maintenance.conf"
    said = capsys.readouterr().err
    assert said.startswith(f"tradingbot: maintenance: {path}: No space left on device, a file system is full\n")
    assert "Way out: `df -h`" in said
    assert written(host) == before
    assert [one.name for one in path.parent.iterdir() if one.name.startswith(".")] == []
    assert host.ran == []


def test_maintenance_is_written_and_applied(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    for state, value in (("on", 1), ("off", 0)):
        assert do("maintenance", state) == 0
        assert written(host) == f'map "" $maintenance {{ default {value}; }}\n'
        assert f"maintenance is {state}" in capsys.readouterr().out
    assert host.ran == [["docker", "exec", "id-nginx", "sh", "/etc/tradingbot/nginx/apply.sh"]] * 2
    path = host.folder / "nginx/live/maintenance.conf"
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(one.name for one in path.parent.iterdir()) == ["maintenance.conf", "upstream.conf"]


def test_what_nginx_does_not_take_is_taken_back(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(host)
    host.answers["apply.sh"] = (1, "", "nginx does not accept what is on disk\n")
    assert do("maintenance", "on") == 1
    assert written(host) == before
    assert len(host.ran) == 2, "nginx takes the old state again"
    assert "nginx did not take it: nginx does not accept what is on disk" in capsys.readouterr().err


@pytest.mark.parametrize("own", ["running", "exited"])
def test_maintenance_reaches_a_second_nginx(host: Host, own: str) -> None:
    """Clients are led to it while the first is replaced, and for longer when that fails."""
    host.containers[-1:] = [container("nginx", own), container("nginx", one_off=True) | SECOND]
    assert do("maintenance", "on") == 0
    assert [command[2] for command in host.ran] == (["id-nginx"] if own == "running" else []) + ["id-second"]
    host.ran.clear()
    host.answers["id-second curl"] = (0, "abc backend-blue 0\n", "")
    host.answers["id-nginx curl"] = (0, "abc backend-blue 1\n", "")
    assert do("maintenance", "status") == 1
    host.answers["exec id-second"] = (1, "", "nginx does not accept what is on disk\n")
    assert do("maintenance", "off") == 1
    assert "default 1" in written(host)


def test_an_nginx_that_ends_meanwhile_does_not_keep_maintenance_off(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = container("nginx", one_off=True) | SECOND
    host.containers.append(second)

    def run(command: list[str], timeout: float) -> tuple[int, str, str]:
        if "id-second" in command:
            second["State"]["Running"] = False
            return 1, "", "it is not running"
        return host.run(command, timeout)

    monkeypatch.setattr(stack_health, "run", run)
    assert do("maintenance", "on") == 0
    assert "default 1" in written(host)


def test_without_nginx_no_state_is_written(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(host)
    host.containers = [one for one in host.containers if one["Id"] != "id-nginx"]
    assert do("maintenance", "on") == 1
    assert "nginx: it does not run" in capsys.readouterr().err
    assert written(host) == before
    shutil.rmtree(host.folder / "nginx")
    assert do("maintenance", "on") == 1
    assert "no web server is laid out on this host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("runs", "on_disk", "code", "said"),
    [
        ("0", 0, 0, "maintenance is off\n"),
        ("1", 1, 0, "maintenance is on\n"),
        ("1", 0, 1, "maintenance is on\n"),
    ],
)
def test_maintenance_status(
    host: Host, runs: str, on_disk: int, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["curl"] = (0, f"abc backend-blue {runs}\n", "")
    maintenance.write(
        host.folder / "nginx/live/maintenance.conf", f"# Written by hand.\n{maintenance.TEXT.format(state=on_disk)}"
    )
    assert do("maintenance", "status") == code
    told = capsys.readouterr()
    assert told.out == said
    assert ("says the contrary: `tradingbot maintenance off`" in told.err) == bool(code)


def test_maintenance_status_of_an_nginx_that_does_not_tell(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.answers["curl"] = (7, "", "curl: (7) no connection\n")
    assert do("maintenance", "status") == 1
    assert "nginx does not say: curl: (7) no connection" in capsys.readouterr().err


# Building.


def test_build_without_sources_says_where_they_are(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert do("build") == 2
    said = capsys.readouterr().err
    assert "the sources are on the controller" in said
    assert "ansible-playbook playbooks/build.yml" in said
    assert host.called == []


@pytest.mark.parametrize("version", ["", "a b", "-x", "a/b", "x" * 129])
def test_build_refuses_what_is_no_version(host: Host, tmp_path: Path, version: str) -> None:
    assert do("build", str(tmp_path)) == 2  # no Dockerfile
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert do("build", str(tmp_path), f"--version={version}") == 2
    assert host.called == []


def test_build(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    host.answers["rev-parse"] = (0, "c0ffee\n", "")
    assert do("build", str(tmp_path), "--version", "0.4.0") == 0
    (command,) = host.called
    assert command[:2] == ["docker", "build"]
    assert command[-3:] == ["--tag", "tradingbot-backend:0.4.0", str(tmp_path)]
    assert {"VCS_REF=c0ffee", "VERSION=0.4.0"} <= set(command)
    assert any(re.fullmatch(r"BUILD_DATE=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", word) for word in command)
    assert "tradingbot-backend:0.4.0: 123.4 MB, " in capsys.readouterr().out
    host.codes["build"] = 1
    assert do("build", str(tmp_path)) == 1
    host.answers["rev-parse"] = (128, "", "not a git repository")
    assert build.commit(tmp_path) == "unknown"


# Completion, and what else knows the verbs.


def complete(*words: str) -> set[str]:
    """What bash offers after these words."""
    script = FILES / "usr/share/bash-completion/completions/tradingbot"
    line = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tradingbot; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", line, "bash", str(script), "tradingbot", *words], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_completion_knows_all_verbs_and_options() -> None:
    assert complete("") == {*VERBS, "--help"}
    assert complete("re") == {"restart", "redis-cli"}
    assert complete("up", "re") == {"redis"}
    assert complete("restart", "redis", "wo") == {"worker"}
    assert complete("maintenance", "") == {"on", "off", "status", "--help"}
    assert complete("psql", "x") == set()
    for verb in VERBS:
        offered = {word for word in complete(verb, "--") if word.startswith("--")}
        # argparse has no public way to a subparser's arguments, and its types do not know the private one.
        actions = next(action for action in cli.parser()._subparsers._group_actions).choices[verb]._actions  # type: ignore[union-attr,index]
        known = {option for action in actions for option in action.option_strings if option.startswith("--")}
        # All that follows belongs to another program.
        assert offered == (set() if verb in ("psql", "redis-cli") else known), verb


def test_the_playbooks_name_the_services_that_the_command_knows() -> None:
    for name in ("restart", "logs"):
        (play,) = yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text())
        assert play["vars"]["all_services"] == list(stack_health.SERVICES)


def test_containers_and_stack_agree_on_what_is_stopped_last() -> None:
    assert set(containers.STORES) < set(stack_health.SERVICES)


class TestRules:
    """What `rules` does about what was flushed."""

    @pytest.fixture(autouse=True)
    def kernel(self, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Rules of the kernel: an engine that starts writes them, unless it has forgotten a port."""
        self.firewall, self.engine, self.forgotten = True, True, False
        host.answers["is-active"] = (0, "active\n", "")

        def run(command: list[str], timeout: float) -> tuple[int, str, str]:
            line = " ".join(command)
            self.firewall = self.firewall or line == "systemctl reload-or-restart tradingbot-firewall.service"
            self.engine = self.engine or (line == "systemctl restart docker.service" and not self.forgotten)
            self.engine = self.engine or line == "docker restart tradingbot-nginx-1"
            return host.run(command, timeout)

        monkeypatch.setattr(rules, "run", run)
        self.late: list[str] = []
        monkeypatch.setattr(rules, "LOOK_PAUSES", (0.0,) * 3)

        def look(what: str, there: bool, gone: Any, well: Any) -> Any:
            if what in self.late:
                self.late.remove(what)
                raise stack_network.LookError("timed out")
            return well if there else gone

        self.confirmed = tmp_path / "firewall.confirmed.nft"
        self.confirmed.touch()
        monkeypatch.setattr(stack_network, "CONFIRMED", self.confirmed)
        monkeypatch.setattr(
            stack_network, "firewall_difference", lambda: look("firewall", self.firewall, "it is gone", "")
        )
        monkeypatch.setattr(
            stack_network, "missing_rules", lambda _: look("engine", self.engine, ["port 443 of nginx"], [])
        )
        monkeypatch.setattr(
            stack_network,
            "missing_ports",
            lambda one: [] if self.engine or "nginx" not in one["Name"] else ["port 443 of nginx"],
        )

    def changed(self, host: Host) -> list[str]:
        return [" ".join(command) for command in host.ran if command[1] not in ("is-active", "start")]

    def test_nothing_is_touched_when_all_is_there(self, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
        assert do("rules") == 0
        assert capsys.readouterr().out == "Docker's rules are in place\n"
        assert self.changed(host) == []

    def test_the_firewall_comes_back(self, host: Host) -> None:
        self.firewall = False
        assert do("rules") == 0
        assert self.changed(host) == ["systemctl reload-or-restart tradingbot-firewall.service"]

    def test_a_firewall_that_cannot_be_looked_at_is_never_taken_away(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.late = ["firewall"]
        assert do("rules") == 0
        assert self.changed(host) == ["systemctl reload-or-restart tradingbot-firewall.service"]
        assert "as confirmed is unknown: timed out" in capsys.readouterr().out

    def test_without_confirmed_rules_the_firewall_stays_as_it_is(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.confirmed.unlink()
        self.firewall, self.engine = False, False
        assert do("rules") == 1
        said = capsys.readouterr().err
        assert "no rules were confirmed; what is loaded stays as it is" in said
        assert "Way out: run site.yml" in said
        assert not any("firewall" in line for line in self.changed(host))
        assert self.engine, "clients need Docker's rules all the same"

    def test_a_firewall_that_is_off_stays_off(self, host: Host) -> None:
        self.firewall = False
        host.settings_file.write_text(json.dumps(host.settings | {"firewall": False}))
        assert do("rules") == 0
        assert self.changed(host) == []

    def test_the_engine_writes_its_rules_when_it_restarts(self, host: Host) -> None:
        self.engine = False
        assert do("rules") == 0
        assert self.changed(host) == ["systemctl reset-failed docker.service", "systemctl restart docker.service"]

    def test_rules_that_cannot_be_looked_at_restart_nothing(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.engine, self.late = False, ["engine"] * len(rules.LOOK_PAUSES)
        assert do("rules") == 1
        assert "nothing was restarted for that: timed out" in capsys.readouterr().err
        assert self.changed(host) == []

    def test_a_busy_host_is_looked_at_again(self, host: Host) -> None:
        self.engine, self.late = False, ["engine"]
        assert do("rules") == 0
        assert self.changed(host)[-1] == "systemctl restart docker.service"

    @pytest.mark.parametrize("answers", [True, False])
    def test_an_engine_whose_restart_stops_containers_is_not_restarted(
        self, host: Host, answers: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.engine, host.live_restore, host.away = False, False, not answers
        assert do("rules") == 1
        said = capsys.readouterr().err
        assert ("`live-restore` is off" if answers else "no engine answers") in said
        assert "Way out" in said
        assert self.changed(host) == []

    def test_a_container_whose_ports_were_forgotten_is_restarted(
        self, host: Host, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.engine, self.forgotten = False, True
        assert do("rules") == 0
        assert self.changed(host)[-1] == "docker restart tradingbot-nginx-1"
        assert capsys.readouterr().out.splitlines()[-1].endswith("forgotten their ports: tradingbot-nginx-1")

    @pytest.mark.parametrize("alive", [True, False])
    def test_connections_are_led_to_no_second_nginx_that_is_gone(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alive: bool
    ) -> None:
        ended: list[bool] = []
        second = container("nginx", one_off=True) | SECOND
        second["NetworkSettings"] = {"Networks": {"edge": {"IPAddress": "172.20.0.9" if alive else ""}}}
        host.containers.append(second)
        monkeypatch.setattr(stack_network, "handover", lambda: "172.20.0.9")
        monkeypatch.setattr(stack_network, "end_handover", lambda: ended.append(True))
        assert do("rules") == 0
        assert ended == ([] if alive else [True])
        assert ("own container gets new connections" in capsys.readouterr().out) != alive

    def test_an_engine_that_does_not_run_is_left_alone(self, host: Host) -> None:
        self.engine, host.away = False, True
        host.answers["is-active"] = (3, "inactive\n", "")
        assert do("rules") == 0
        assert self.changed(host) == []

    @pytest.mark.parametrize("alive", [True, False])
    def test_without_an_engine_a_second_nginx_is_asked_itself(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, alive: bool
    ) -> None:
        """Docker's socket would start an engine that was stopped."""
        ended: list[bool] = []
        host.away, host.answers["is-active"] = True, (3, "inactive\n", "")
        monkeypatch.setattr(stack_network, "handover", lambda: "172.20.0.9")
        monkeypatch.setattr(stack_network, "end_handover", lambda: ended.append(True))
        monkeypatch.setattr(stack_network, "connects", lambda *asked: alive and asked == ("172.20.0.9", 8080))
        assert do("rules") == 0
        assert ended == ([] if alive else [True])

    @pytest.mark.parametrize("words", ["restart docker.service", "docker restart"])
    def test_what_does_not_work_is_told(self, host: Host, words: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.engine, self.forgotten = False, True
        host.answers[words] = (1, "", "it says no")
        assert do("rules") == 1
        assert "it says no" in capsys.readouterr().err
