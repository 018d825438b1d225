# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What people are told of the services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter import services

ROOT = Path(__file__).resolve().parents[2]


def service(name: str, state: str = "running", health: str = "healthy") -> dict[str, str]:
    return {"Service": name, "State": state, "Health": health, "Status": f"Up 2 hours ({health})", "Image": f"{name}:1"}


def as_lines(*found: dict[str, str]) -> str:
    """As Compose has written it since 2.21."""
    return "".join(f"{json.dumps(one)}\n" for one in found)


def as_document(*found: dict[str, str]) -> str:
    """As Compose 2.20 writes it."""
    return json.dumps(found)


@pytest.mark.parametrize("form", [as_lines, as_document])
def test_services_that_run_and_are_healthy_are_well(form: Any) -> None:
    told = form(service("redis"), service("postgres"))
    assert services.service_problems(told, ["postgres", "redis"]) == []


@pytest.mark.parametrize(
    ("state", "health", "said"),
    [
        ("running", "unhealthy", "redis is running unhealthy: see `docker compose logs --tail 50 redis`"),
        ("running", "starting", "redis is running starting: see `docker compose logs --tail 50 redis`"),
        ("exited", "", "redis is exited: see `docker compose logs --tail 50 redis`"),
        ("restarting", "", "redis is restarting: see `docker compose logs --tail 50 redis`"),
        # Without a health check nobody knows.
        ("running", "", "redis is running: see `docker compose logs --tail 50 redis`"),
        # The last word of a container that is gone.
        ("exited", "healthy", "redis is exited healthy: see `docker compose logs --tail 50 redis`"),
    ],
)
def test_names_the_service_that_is_not_well_and_where_to_look(state: str, health: str, said: str) -> None:
    told = as_lines(service("postgres"), service("redis", state, health))
    assert services.service_problems(told, ["postgres", "redis"]) == [said]


@pytest.mark.parametrize("told", ["", "\n", "[]"])
def test_a_service_without_container_is_not_well(told: str) -> None:
    said = "nginx has no container: run site.yml, or `docker compose up -d nginx`"
    assert services.service_problems(told, ["nginx"]) == [said]


def test_services_that_are_not_asked_for_do_not_count() -> None:
    assert services.service_problems(as_lines(service("other", "exited")), []) == []


def test_keeps_the_order_asked_for() -> None:
    said = services.service_problems("", ["redis", "nginx", "backend"])
    assert [line.split()[0] for line in said] == ["redis", "nginx", "backend"]


@pytest.mark.parametrize("form", [as_lines, as_document])
def test_table_is_sorted_and_aligned(form: Any) -> None:
    told = form(service("redis"), service("nginx", "exited", ""))
    assert services.service_table(told).splitlines() == [
        "SERVICE  STATE    HEALTH   UP                    IMAGE",
        "nginx    exited            Up 2 hours ()         nginx:1",
        "redis    running  healthy  Up 2 hours (healthy)  redis:1",
    ]


def test_table_of_nothing_has_its_headings() -> None:
    assert services.service_table("") == "SERVICE  STATE  HEALTH  UP  IMAGE"


@pytest.mark.parametrize("told", ["no configuration file provided: not found", "[{]", '{"Service": "redis"'])
def test_refuses_what_compose_did_not_write(told: str) -> None:
    for reading in (services.service_table, lambda text: services.service_problems(text, [])):
        with pytest.raises(AnsibleFilterError, match="not the output of `docker compose ps --format json`"):
            reading(told)


def test_every_filter_is_documented() -> None:
    names = sorted(f"tradingbot.stack.{name}" for name in services.FilterModule().filters())
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-doc"), "--type", "filter", "--json", *names],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    known = json.loads(done.stdout)
    assert sorted(known) == names
    for name in names:
        assert known[name]["doc"]["name"] == name.rsplit(".", 1)[1]
        assert known[name]["doc"]["version_added"] == "0.1.0"
        assert known[name]["examples"]
        assert known[name]["return"]
