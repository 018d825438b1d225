# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""A service that is not well: what the engine and its log say of it, and the fix, without a secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.module_utils import container_failure, failures, target
from test_failures import play

ROOT = Path(__file__).resolve().parents[2]
SECRET = "redis-0123456789abcdef-0123456789"


def container(**state: Any) -> dict[str, Any]:
    """What the engine says of a container."""
    return {
        "Id": "f00",
        "RestartCount": state.pop("restarts", 0),
        "State": {"Status": "exited", "Running": False, "ExitCode": 0} | state,
        "HostConfig": {"Memory": 512 << 20},
        "Config": {"Labels": {"com.docker.compose.service": "redis"}},
    }


def ask(
    folder: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None, log: str = "", said: str = "no"
) -> str:
    """Return what is said of a container with this log."""
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets" / "redis_url").write_text(f"redis://tradingbot:{SECRET}@redis:6379/0\n")
    (folder / "log").write_text(log)
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\n[ "$*" = "logs --tail 20 f00" ] && cat {folder}/log >&2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    answers = {"json?": [] if found is None else [found], "f00": found}
    monkeypatch.setattr(target, "docker_get", lambda resource, *_: answers[resource.split("/")[2][:5]])
    return container_failure.why("redis", folder, said=said)


UNHEALTHY = {"Status": "unhealthy", "Log": [{"ExitCode": 0, "Output": "old"}, {"ExitCode": 1, "Output": "no answer\n"}]}


@pytest.mark.parametrize(
    ("found", "log", "said"),
    [
        (container(ExitCode=1), "", ["redis is exited, exit code 1.", "Its log is empty."]),
        (container(ExitCode=1), "Bad file format\n", ["The end of its log:\nBad file format"]),
        (
            container(ExitCode=137, OOMKilled=True),
            "",
            ["It ran out of memory, of which it has 512 MiB. Fix: raise redis_memory_mb"],
        ),
        (container(ExitCode=137), "", ["exit code 137 (it was killed (SIGKILL)"]),
        (
            container(Status="restarting", ExitCode=255, restarts=4),
            "",
            ["redis is restarting", "started again 4 times"],
        ),
        (container(ExitCode=255), "exec /entrypoint.sh: exec format error", ["made for another architecture. Fix:"]),
        (
            container(Status="running", Running=True, Health=UNHEALTHY),
            "",
            ["redis is running.", "exit code 1 and said: no answer"],
        ),
        (
            container(ExitCode=127, Error='exec: "redis": executable file not found in $PATH'),
            "",
            ["The engine says: exec", "lacks the program"],
        ),
        (
            container(Status="created", Error="Bind for 0.0.0.0:80 failed: port is already allocated"),
            "",
            ["0.0.0.0:80", "a port is taken. Fix: `ss -tlnp`"],
        ),
        (container(ExitCode=1), "write: No space left on device", ["a file system is full. Fix: `df -h`"]),
        (None, "", ["redis has no container."]),
    ],
)
def test_it_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None, log: str, said: list[str]
) -> None:
    text = ask(tmp_path, monkeypatch, found, log, "container tradingbot-redis-1 is unhealthy")
    assert text.startswith("container tradingbot-redis-1 is unhealthy\n")
    assert [words for words in said if words not in text] == [], text


def test_a_check_that_went_well_before_the_end_is_not_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"Status": "unhealthy", "Log": [{"ExitCode": 0, "Output": "PONG"}]}
    assert "PONG" not in ask(tmp_path, monkeypatch, container(ExitCode=128, Health=before))


def test_a_healthy_check_is_not_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = {"Status": "healthy", "Log": [{"ExitCode": 0, "Output": "PONG"}]}
    text = ask(tmp_path, monkeypatch, container(Status="running", Running=True, Health=healthy))
    assert text == "no\nredis is running.\nIts log is empty."


def test_the_end_of_the_log_is_bounded_plain_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "\x1b[2Kline\n" * 100 + f"refused redis://tradingbot:{SECRET}@redis:6379/0 and {SECRET}\n"
    text = ask(tmp_path, monkeypatch, container(ExitCode=1), log, f"said {SECRET}")
    assert SECRET not in text
    assert text.count("line\n") == failures.MOST_LINES - 1
    assert f"redis and {failures.MASK}" not in text
    assert text.endswith(f"and {failures.MASK}")
    assert "\x1b" not in text


def test_without_an_engine_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "docker_get", lambda *_: None)
    assert container_failure.why("redis", tmp_path).startswith("The Docker engine does not answer: `systemctl")


def waits(tasks: list[dict[str, Any]], service: str = "") -> list[tuple[str, str]]:
    """Return each service that is waited for, with the service that the rescue around it explains."""
    found = []
    for task in tasks:
        compose = task.get("community.docker.docker_compose_v2") or {}
        found += [(compose["services"][0], service)] if compose.get("wait") else []
        rescue = [one.get("tradingbot.stack.service_failure", {}).get("service", "") for one in task.get("rescue", [])]
        found += waits(task.get("block", []), "".join(rescue) or service)
        found += waits(task.get("always", []), service) + waits(task.get("rescue", []), service)
    return found


def test_every_wait_for_a_container_is_explained() -> None:
    found = [one for file in ROOT.glob("roles/*/tasks/*.yml") for one in waits(yaml.safe_load(file.read_text()) or [])]
    assert sorted(found) == [(name, name) for name in ("postgres", "redis")]


def test_the_role_says_more_than_compose(tmp_path: Path) -> None:
    tasks = yaml.safe_load((ROOT / "roles/redis/tasks/run.yml").read_text())
    variables = {"redis_pull": "missing", "redis_wait_timeout": 5}
    found = play(tmp_path, tasks, {"host": "echo 'container tradingbot-redis-1 is unhealthy' >&2; exit 1"}, **variables)
    assert "is unhealthy" in found["host"]
    # This machine's own engine is asked, which has no such stack, if there is one.
    assert "redis has no container." in found["host"] or "The Docker engine does not answer" in found["host"]
