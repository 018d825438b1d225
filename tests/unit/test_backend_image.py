# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""How the backend's image comes from its sources or a registry, without a host."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from rendering import ROOT
from small_host import evaluate, problems
from test_backend_role import PUBLIC, SECRETS

TASKS = ROOT / "roles" / "backend" / "tasks"
HERE = {"role_path": str(ROOT / "roles" / "backend"), "backend_public_url": "https://bot.example.com"}
LOGIN = {
    "backend_registry_url": "registry.example.com",
    "backend_registry_username": "robot",
    "backend_registry_password": "hidden-password",
}


def tasks(name: str) -> list[dict[str, Any]]:
    """Return the tasks of a file of the role."""
    found: list[dict[str, Any]] = yaml.safe_load((TASKS / name).read_text())
    return found


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({}, []),
        (LOGIN, []),
        (LOGIN | {"backend_registry_url": "127.0.0.1:5001"}, []),
        (LOGIN | {"backend_registry_url": "https://index.docker.io/v1/"}, []),
        (LOGIN | {"backend_registry_password": ""}, ["backend_registry_username and backend_registry_password"]),
        (LOGIN | {"backend_registry_username": ""}, ["backend_registry_username and backend_registry_password"]),
        (LOGIN | {"backend_registry_url": ""}, ["backend_registry_url"]),
        (LOGIN | {"backend_registry_url": "registry.example.com/team"}, ["backend_registry_url"]),
    ],
)
def test_a_login_is_given_as_a_whole_or_not_at_all(variables: dict[str, str], refused: list[str]) -> None:
    found = problems("backend", **(HERE | PUBLIC | SECRETS | variables))
    assert [problem["what"] for problem in found] == refused
    assert "hidden-password" not in str([{key: one[key] for key in ("what", "why", "fix")} for one in found])


def test_a_login_is_in_memory_and_only_for_as_long_as_it_is_used() -> None:
    free, closed = tasks("registry.yml")
    assert free["when"] == "backend_registry_username | length == 0"
    assert closed["when"] == "backend_registry_username | length > 0"
    paths = {
        evaluate("backend", "__backend_registry_login", **HERE, __backend_registry_tasks=name)
        for name in ("pull_image.yml", "push.yml")
    }
    assert paths == {"/run/tradingbot/registry/pull_image", "/run/tradingbot/registry/push"}
    assert closed["environment"] == {"DOCKER_CONFIG": "{{ __backend_registry_login }}"}
    (gone,) = closed["always"]
    assert gone["ansible.builtin.file"] == {"path": "{{ __backend_registry_login }}", "state": "absent"}
    (folder,) = closed["block"][0]["tradingbot.stack.files"]["folders"]
    assert folder["mode"] == "0700"


def test_no_output_has_the_password() -> None:
    (tried,) = tasks("registry_login.yml")
    (login,) = tried["block"]
    assert login["no_log"] is True
    assert login["community.docker.docker_login"]["password"] == "{{ backend_registry_password }}"
    (said,) = tried["rescue"]
    assert "password }}" not in str(said)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("registry.example.com/tradingbot-backend", True),
        ("registry.example.com:5000/team/tradingbot-backend", True),
        ("127.0.0.1:5001/tradingbot-backend", True),
        ("registry.example.com/tradingbot-backend:0.3.0", False),
        ("registry.example.com/tradingbot-backend@sha256:00", False),
        ("registry.example.com", False),
        ("https://registry.example.com/tradingbot-backend", False),
        ("registry.example.com/Tradingbot", False),
        ("registry.example.com/tradingbot-backend\n", False),
    ],
)
def test_a_push_goes_to_a_repository(name: str, accepted: bool) -> None:
    (refusal,) = [task for task in tasks("image.yml") if "ansible.builtin.fail" in task]
    assert evaluate("backend", refusal["when"], **HERE, backend_push=name) is not accepted


def test_a_push_has_the_version_and_latest() -> None:
    pushed = evaluate("backend", "__backend_pushed", **HERE, backend_push="registry.example/bot", backend_version="1.2")
    assert list(pushed) == ["registry.example/bot:1.2", "registry.example/bot:latest"]


def test_a_build_has_the_digest_of_its_sources_also_where_an_inventory_pulls() -> None:
    """Else a changed source finds an image of its version, and that one is pushed."""
    *checks, build = tasks("image.yml")
    assert "__backend_local_image" not in str(checks)
    assert {"build_if_missing.yml", "sbom.yml"} < {
        str(task.get("ansible.builtin.import_tasks", task.get("ansible.builtin.include_tasks")))
        for task in build["block"]
    }
    name = build["vars"]["__backend_local_image"].removeprefix("tradingbot-backend:{{").removesuffix("}}")
    pulled = {"backend_version": "1.2.3", "backend_image": "registry.example.com/tradingbot-backend:1.2.3"}
    built = evaluate("backend", "__backend_local_image", **HERE, backend_version="1.2.3")
    assert "tradingbot-backend:" + evaluate("backend", name, **HERE, **pulled) == built
    assert re.fullmatch(r"tradingbot-backend:1\.2\.3-[0-9a-f]{12}", built)
