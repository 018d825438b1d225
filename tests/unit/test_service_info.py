# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""A container as its definition says needs no `docker compose up`; one that differs, or cannot be seen, does."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_services, target
from rendering import ROOT
from small_host import evaluate

LABELS = {
    "com.docker.compose.project": "tradingbot",
    "com.docker.compose.service": "redis",
    "com.docker.compose.config-hash": "abc",
}
REDIS: dict[str, Any] = {
    "Id": "redis1",
    "Image": "sha256:new",
    "Config": {"Image": "redis:7-alpine", "Labels": LABELS},
    "State": {"Status": "running", "Health": {"Status": "healthy"}},
    "NetworkSettings": {"Networks": {"tradingbot-network": {"NetworkID": "net1"}}},
}


def answer(container: dict[str, Any] | None, *more: dict[str, Any], **given: Any) -> bool:
    """Return whether Redis is up to date, with what the engine and Compose say."""
    engine = {
        "/images/redis:7-alpine/json": {"Id": "sha256:new"},
        "/networks/tradingbot-network": {"Id": "net1"},
    } | given.get("engine", {})
    there = [one for one in (container, *more) if one]
    hashed = given.get("hashed", subprocess.CompletedProcess([], 0, "redis abc\n", ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_services, "containers", lambda *_: None if given.get("away") else there)
        patch.setattr(target, "docker_get", lambda resource, *_: engine[resource])
        patch.setattr(subprocess, "run", lambda *_, **__: hashed)
        return stack_services.is_up_to_date("redis", Path("/opt/tradingbot"))


def changed(*path: str, to: Any) -> dict[str, Any]:
    """Return the container with another value at *path*."""
    container = copy.deepcopy(REDIS)
    here = container
    for name in path[:-1]:
        here = here[name]
    here[path[-1]] = to
    return container


def test_a_container_as_its_definition_says() -> None:
    assert answer(REDIS) is True
    others = changed("Config", "Labels", to=LABELS | {"com.docker.compose.service": "postgres"})
    assert answer(REDIS, others) is True


@pytest.mark.parametrize(
    "container",
    [
        None,
        changed("State", "Status", to="exited"),
        changed("State", "Status", to="paused"),
        changed("State", "Status", to="restarting"),
        changed("State", "Health", "Status", to="unhealthy"),
        changed("State", "Health", "Status", to="starting"),
        changed("State", "Health", to=None),
        changed("Image", to="sha256:old"),
        changed("Config", "Labels", to=LABELS | {"com.docker.compose.config-hash": "old"}),
        changed("NetworkSettings", "Networks", to={}),
        changed("NetworkSettings", "Networks", to={"tradingbot-network": {"NetworkID": "gone"}}),
    ],
    ids=str,
)
def test_one_that_differs(container: dict[str, Any] | None) -> None:
    assert answer(container) is False


@pytest.mark.parametrize(
    "given",
    [
        {"away": True},
        {"engine": {"/images/redis:7-alpine/json": None}},
        {"engine": {"/networks/tradingbot-network": None}},
        {"hashed": subprocess.CompletedProcess([], 1, "redis abc\n", "no such service")},
        {"hashed": subprocess.CompletedProcess([], 0, "", "")},
    ],
    ids=str,
)
def test_what_cannot_be_seen(given: dict[str, Any]) -> None:
    assert answer(REDIS, **given) is False


def test_two_containers_of_a_service() -> None:
    assert answer(REDIS, REDIS) is False


def test_without_compose() -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", gone)
        assert stack_services.definition_hash("redis", Path("/opt/tradingbot")) == ""


@pytest.mark.parametrize(
    ("pull", "up_to_date", "asked"),
    [("missing", True, False), ("missing", False, True), ("always", True, True), ("never", True, False)],
)
@pytest.mark.parametrize("role", ["postgres", "redis", "nginx"])
def test_compose_is_asked_unless_all_is_as_defined(role: str, pull: str, up_to_date: bool, asked: bool) -> None:
    """With `always` the registry may have a newer image, which nobody but Compose looks for."""
    tasks = yaml.safe_load((ROOT / "roles" / role / "tasks" / "run.yml").read_text())
    compare, up = tasks[:2]
    assert compare["tradingbot.stack.service_info"]["service"] == role
    known = {compare["register"]: {"up_to_date": up_to_date}, f"{role}_pull": pull}
    assert evaluate(role, up["when"], **known) is asked
