# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The cache: confined, closed to strangers, kept over a crash, and no more powerful than the backend needs."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONTAINER = "tradingbot-redis-1"
SECRETS = "/opt/tradingbot/secrets"


def inspect(host: Any) -> dict[str, Any]:
    """Return what Docker knows of the container."""
    with host.sudo():
        found: dict[str, Any] = json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0]
    return found


def redis(host: Any, user: str, password: str, *words: str) -> str:
    """Return Redis's answer to *user*, who comes from a container beside it."""
    with host.sudo():
        command = (
            "docker run --rm --network tradingbot-network --env REDISCLI_AUTH=%s --entrypoint redis-cli "
            "$(docker inspect --format '{{.Config.Image}}' " + CONTAINER + ") "
            "-h redis --no-auth-warning " + ("--user %s " if user else "") + "%s " * len(words) + "2>&1"
        )
        arguments = [password, user, *words] if user else [password, *words]
        return str(host.run(command, *arguments).stdout).strip()


def apply(host: Any, folder: Path, **variables: Any) -> str:
    """Apply the role with *variables* on top of the inventory's; return the output."""
    play = folder / "play.yml"
    play.write_text(json.dumps([{"hosts": host.backend.host, "become": True, "roles": ["tradingbot.stack.redis"]}]))
    command = ["ansible-playbook", "--inventory", host.backend.ansible_inventory, str(play)]
    run = subprocess.run(
        [*command, "--extra-vars", json.dumps(variables)],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def password(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A password of the application's user, new for these tests; afterwards it is the inventory's again."""
    folder = tmp_path_factory.mktemp("redis")
    value = secrets.token_hex(16)
    assert "failed=0" in apply(host, folder, redis_password=value)
    yield value
    assert "failed=0" in apply(host, folder)


def test_its_data_is_a_volume_of_its_own(host: Any) -> None:
    mounts = {mount["Destination"]: mount for mount in inspect(host)["Mounts"]}
    assert mounts["/data"]["Name"] == "tradingbot_redis_data"
    with host.sudo():
        assert host.check_output("stat -c '%%u:%%g' %s", mounts["/data"]["Source"]) == "999:1000"
        assert host.check_output("ls %s", mounts["/data"]["Source"] + "/appendonlydir")


def test_secrets_show_nowhere(host: Any) -> None:
    with host.sudo():
        for name in ("redis_acl", "redis_health_password"):
            assert host.check_output(f"stat -c '%u:%g %a' {SECRETS}/{name}") == "999:1000 400"
        health = host.check_output(f"cat {SECRETS}/redis_health_password")
        acl = host.check_output(f"cat {SECRETS}/redis_acl")
        assert health not in acl
        assert hashlib.sha256(health.encode()).hexdigest() in acl
        for command in (f"docker inspect {CONTAINER}", f"docker logs {CONTAINER} 2>&1", "ps axww -o args"):
            assert health not in host.check_output(command), command


@pytest.mark.parametrize(
    ("user", "value", "answer"),
    [
        ("", "", "NOAUTH"),
        ("", "guess", "NOAUTH"),
        ("tradingbot", "guess", "WRONGPASS"),
        ("nobody", "guess", "WRONGPASS"),
    ],
)
def test_strangers_are_refused(host: Any, user: str, value: str, answer: str) -> None:
    said = redis(host, user, value, "PING")
    assert answer in said or "AUTH failed" in said
    assert "PONG" not in said


def test_the_health_user_can_only_ping(host: Any) -> None:
    # Inside the container, so that the password is on no command line and in no log of sudo.
    script = 'REDISCLI_AUTH="$(cat /run/secrets/redis_health_password)" redis-cli --user health --no-auth-warning "$@"'

    def said(*words: str) -> str:
        with host.sudo():
            command = f"docker exec {CONTAINER} sh -c %s - " + "%s " * len(words)
            return str(host.run(command, script, *words).stdout).strip()

    assert said("PING") == "PONG"
    for words in (["GET", "tradingbot:x"], ["INFO"], ["PUBLISH", "tradingbot:x", "1"], ["ACL", "WHOAMI"]):
        assert said(*words).startswith("NOPERM"), words


def test_the_application_has_what_it_needs(host: Any, password: str) -> None:
    key = f"tradingbot:verify:{secrets.token_hex(4)}"
    script = "return redis.call('incr', KEYS[1])"
    for words, answer in (
        (["PING"], "PONG"),
        (["SET", key, "1", "EX", "60"], "OK"),
        (["GET", key], "1"),
        (["INCR", key], "2"),
        (["EXPIRE", key, "60"], "1"),
        (["EVAL", script, "1", key], "3"),
        (["PUBLISH", "tradingbot:verify", "hello"], "0"),
        (["CLIENT", "SETNAME", "verify"], "OK"),
        (["DEL", key], "1"),
    ):
        assert redis(host, "tradingbot", password, *words) == answer, words
    assert len(redis(host, "tradingbot", password, "SCRIPT", "LOAD", "return 1")) == 40
    assert "proto" in redis(host, "tradingbot", password, "HELLO", "3")


@pytest.mark.parametrize(
    "words",
    [
        ["SET", "other:key", "1"],
        ["GET", "other:key"],
        ["PUBLISH", "other:channel", "1"],
        ["EVAL", "return redis.call('get', 'other:key')", "0"],
        ["KEYS", "*"],
        ["FLUSHALL"],
        ["CONFIG", "GET", "maxmemory"],
        ["ACL", "LIST"],
        ["SAVE"],
        ["SHUTDOWN"],
        ["MONITOR"],
        ["CLIENT", "LIST"],
        ["FUNCTION", "LIST"],
        ["REPLICAOF", "10.0.0.1", "6379"],
        ["MODULE", "LIST"],
    ],
)
def test_the_application_has_no_more_than_it_needs(host: Any, password: str, words: list[str]) -> None:
    answer = redis(host, "tradingbot", password, *words)
    assert "NOPERM" in answer or "can't access" in answer or "No permissions" in answer or "no permissions" in answer


def test_memory_is_half_of_the_containers(host: Any) -> None:
    with host.sudo():
        config = host.check_output(f"docker exec {CONTAINER} cat /etc/redis/redis.conf")
    settings = dict(line.split(" ", 1) for line in config.splitlines() if " " in line and not line.startswith("#"))
    limit = inspect(host)["HostConfig"]["Memory"] // 1024 // 1024
    assert settings["maxmemory"] == f"{limit // 2}mb"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["save"]


def test_a_killed_server_is_back_within_five_seconds_with_its_data(host: Any, password: str) -> None:
    redis(host, "tradingbot", password, "SET", "tradingbot:verify:kept", "yes", "EX", "300")
    time.sleep(1.5)  # the append-only file reaches the disk every second
    before = inspect(host)["State"]["Pid"]
    probe = (
        f"docker exec {CONTAINER} sh -c 'REDISCLI_AUTH=$(cat /run/secrets/redis_health_password) "
        "redis-cli --user health --no-auth-warning ping'"
    )
    with host.sudo():
        host.check_output("kill -9 $(pgrep -P %s)", str(before))
        start = time.monotonic()
        while time.monotonic() < start + 30:
            if inspect(host)["State"]["Pid"] not in (0, before) and "PONG" in host.run(probe).stdout:
                break
            time.sleep(0.1)
        took = time.monotonic() - start
    assert took <= 5
    assert redis(host, "tradingbot", password, "GET", "tradingbot:verify:kept") == "yes"


def test_a_changed_setting_keeps_the_data(host: Any, password: str, tmp_path: Path) -> None:
    redis(host, "tradingbot", password, "SET", "tradingbot:verify:moved", "yes", "EX", "300")
    identity = inspect(host)["Id"]
    changed = {"redis_password": password, "redis_settings": {"tcp-keepalive": 61}}
    assert "failed=0" in apply(host, tmp_path, **changed)
    assert inspect(host)["Id"] != identity
    assert redis(host, "tradingbot", password, "GET", "tradingbot:verify:moved") == "yes"
    assert "changed=0" in apply(host, tmp_path, **changed)
