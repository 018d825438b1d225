# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The cache: confined, closed to strangers, kept over a crash, and no more powerful than the backend needs."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.host import inspect
from tests.stack.plays import apply_role

CONTAINER = "tradingbot-redis-1"
SECRETS = "/opt/tradingbot/secrets"


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


@pytest.fixture(scope="module")
def password(host: Any) -> Iterator[str]:
    """A password of the application's user, new for these tests; afterwards it is the inventory's again."""
    value = secrets.token_hex(16)
    assert "failed=0" in apply_role(host, "redis", redis_password=value)
    yield value
    assert "failed=0" in apply_role(host, "redis")


def test_its_data_is_a_volume_of_its_own(host: Any) -> None:
    mounts = {mount["Destination"]: mount for mount in inspect(host, "redis")["Mounts"]}
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
    for words, answer in (
        (["PING"], "PONG"),
        (["SET", key, "1", "EX", "60"], "OK"),
        (["GET", key], "1"),
        (["INCR", key], "2"),
        (["EXPIRE", key, "60"], "1"),
        (["PUBLISH", "tradingbot:verify", "hello"], "0"),
        (["CLIENT", "SETNAME", "verify"], "OK"),
        (["DEL", key], "1"),
    ):
        assert redis(host, "tradingbot", password, *words) == answer, words
    assert "proto" in redis(host, "tradingbot", password, "HELLO", "3")


@pytest.mark.parametrize(
    "words",
    [
        ["SET", "other:key", "1"],
        ["GET", "other:key"],
        ["PUBLISH", "other:channel", "1"],
        ["EVAL", "return 1", "0"],
        ["EVALSHA", "0" * 40, "0"],
        ["SCRIPT", "LOAD", "return 1"],
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
    limit = inspect(host, "redis")["HostConfig"]["Memory"] // 1024 // 1024
    assert settings["maxmemory"] == f"{limit // 2}mb"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["save"]


@pytest.mark.alone
def test_a_killed_server_is_back_within_five_seconds_with_its_data(host: Any, password: str) -> None:
    redis(host, "tradingbot", password, "SET", "tradingbot:verify:kept", "yes", "EX", "300")
    time.sleep(1.5)  # the append-only file reaches the disk every second
    before = inspect(host, "redis")["State"]["Pid"]
    probe = (
        f"docker exec {CONTAINER} sh -c 'REDISCLI_AUTH=$(cat /run/secrets/redis_health_password) "
        "redis-cli --user health --no-auth-warning ping'"
    )
    with host.sudo():
        host.check_output("kill -9 $(pgrep -P %s)", str(before))
        start = time.monotonic()
        while time.monotonic() < start + 30:
            if inspect(host, "redis")["State"]["Pid"] not in (0, before) and "PONG" in host.run(probe).stdout:
                break
            time.sleep(0.1)
        took = time.monotonic() - start
    assert took <= 5
    assert redis(host, "tradingbot", password, "GET", "tradingbot:verify:kept") == "yes"


def test_a_changed_setting_keeps_the_data(host: Any, password: str) -> None:
    redis(host, "tradingbot", password, "SET", "tradingbot:verify:moved", "yes", "EX", "300")
    identity = inspect(host, "redis")["Id"]
    changed = {"redis_password": password, "redis_settings": {"tcp-keepalive": 61}}
    assert "failed=0" in apply_role(host, "redis", **changed)
    assert inspect(host, "redis")["Id"] != identity
    assert redis(host, "tradingbot", password, "GET", "tradingbot:verify:moved") == "yes"
    assert "changed=0" in apply_role(host, "redis", **changed)
