# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the redis role puts on a host, and what it refuses, without a host."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml
from small_host import problems, render

SECRETS = {"redis_password": "application-0123456789abcdef", "redis_health_password": "health-0123456789abcdef"}


def fragment(**variables: Any) -> dict[str, Any]:
    text = render("redis", "redis/compose.yaml.j2", **(SECRETS | variables))
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def settings(**variables: Any) -> dict[str, str]:
    lines = render("redis", "redis/conf/redis.conf.j2", **variables).splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def users(**variables: Any) -> dict[str, list[str]]:
    lines = render("redis", "secrets/redis_acl.j2", **(SECRETS | variables)).splitlines()
    return {line.split()[1]: line.split()[2:] for line in lines if line}


def test_the_service_is_confined() -> None:
    service = fragment()["services"]["redis"]
    assert service["user"] == "999:1000"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert "tmpfs" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"] == {"cpus": "1", "memory": "384M", "pids": 64}
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["stop_grace_period"] == "30s"
    assert service["healthcheck"]["interval"] == "30s"
    assert {"start_period", "start_interval", "timeout", "retries"} < set(service["healthcheck"])


def test_nothing_is_published_unless_asked() -> None:
    assert "ports" not in fragment()["services"]["redis"]
    asked = fragment(redis_publish=["10.0.0.6:6379:6379"])
    assert asked["services"]["redis"]["ports"] == ["10.0.0.6:6379:6379"]


def test_mounts_are_a_volume_and_a_read_only_directory() -> None:
    found = fragment(redis_project_dir="/srv/stack")
    data, conf = found["services"]["redis"]["volumes"]
    assert (data["type"], data["source"], data["target"]) == ("volume", "redis_data", "/data")
    assert (conf["type"], conf["source"], conf["read_only"]) == ("bind", "/srv/stack/redis/conf", True)
    assert found["volumes"] == {"redis_data": {}}
    assert found["networks"] == {"tradingbot": {"name": "tradingbot-network", "external": True}}
    assert found["secrets"] == {
        name: {"file": f"/srv/stack/secrets/{name}"} for name in ("redis_acl", "redis_health_password")
    }
    assert "docker.sock" not in str(found)


@pytest.mark.parametrize("template", ["redis/compose.yaml.j2", "redis/conf/redis.conf.j2", "secrets/redis_acl.j2"])
def test_no_clear_password_is_rendered(template: str) -> None:
    text = render("redis", template, **SECRETS)
    assert text
    assert [value for value in SECRETS.values() if value in text] == []


def test_what_redis_reads_at_its_start_recreates_the_container() -> None:
    def label(**variables: Any) -> str:
        return str(fragment(**variables)["services"]["redis"]["labels"]["tradingbot.config-checksum"])

    assert label() == label()
    for changed in (
        {"redis_password": "another-0123456789abcdef"},
        {"redis_health_password": "another-0123456789abcdef"},
        {"redis_settings": {"tcp-keepalive": 61}},
        {"redis_maxmemory_policy": "noeviction"},
        {"redis_user": "cachebot"},
    ):
        assert label() != label(**changed), changed


def test_users_are_the_two_and_no_other() -> None:
    found = users()
    assert list(found) == ["default", "tradingbot", "health"]
    assert found["default"][0] == "off"
    assert "-@all" in found["default"]
    for name, secret in (("tradingbot", "redis_password"), ("health", "redis_health_password")):
        assert found[name][:2] == ["on", "#" + hashlib.sha256(SECRETS[secret].encode()).hexdigest()]
        assert "nopass" not in found[name]
        assert not {"~*", "&*", "allkeys", "allchannels"} & set(found[name])


def test_the_application_is_kept_to_its_keys_and_channels() -> None:
    rules = users()["tradingbot"]
    assert [rule for rule in rules if rule[0] in "~&"] == ["~tradingbot:*", "&tradingbot:*"]
    assert rules.index("resetkeys") < rules.index("~tradingbot:*")
    assert rules.index("resetchannels") < rules.index("&tradingbot:*")
    assert rules.index("+@all") < rules.index("-@admin")
    assert rules.index("+@all") < rules.index("-@dangerous")
    assert rules.index("+@all") < rules.index("-@scripting")
    assert [rule for rule in rules if rule.startswith("+")] == ["+@all"]


def test_the_health_user_may_only_ping() -> None:
    assert [rule for rule in users()["health"] if rule[0] in "+~&"] == ["+ping"]


def test_settings_of_the_specification() -> None:
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "3600 1 300 100 60 10000",
        "aclfile": "/run/secrets/redis_acl",
        "protected-mode": "yes",
        "maxmemory": "192mb",
        "maxmemory-policy": "volatile-lru",
    }
    found = settings()
    assert {name: found[name] for name in wanted} == wanted
    assert settings(redis_settings={"maxmemory": "7mb"})["maxmemory"] == "7mb"
    assert settings(redis_memory_mb=1024)["maxmemory"] == "512mb"


def test_a_good_host_has_no_problem() -> None:
    assert problems("redis") == []


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"redis_memory_mb": 32}, ["redis_memory_mb"]),
        ({"redis_memory_mb": 100000}, ["redis_memory_mb"]),
        ({"redis_cpus": 16}, ["redis_cpus"]),
        ({"redis_cpus": 0, "redis_memory_mb": 1}, ["redis_memory_mb", "redis_cpus"]),
    ],
)
def test_limits_that_cannot_work_are_found(variables: dict[str, Any], names: list[str]) -> None:
    found = problems("redis", **variables)
    assert [problem["what"] for problem in found] == names


def test_a_prefix_of_ones_own_is_refused() -> None:
    (found,) = problems("redis", redis_key_prefix="other:")
    assert (found["what"], found["fix"]) == ("redis_key_prefix", "take it out")
    assert "the backend's keys begin with tradingbot:" in found["why"]
