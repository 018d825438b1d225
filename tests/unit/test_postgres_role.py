# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the postgres role puts on a host, and what it refuses, without a host."""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_host import evaluate, problems, render
from test_failures import play

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "postgres_superuser_password": "superuser-0123456789abcdef",
    "postgres_owner_password": "owner-0123456789abcdef",
    "postgres_password": "service-0123456789abcdef",
    "postgres_readonly_password": "reader-0123456789abcdef",
}
ABSENT: dict[str, Any] = {
    "postgres_owner_password": SECRETS["postgres_owner_password"],
    "__postgres_data_version": {},
}


def fragment(**variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render("postgres", "postgres/compose.yaml.j2", **SECRETS, **variables))
    return found


def settings(**variables: Any) -> dict[str, str]:
    lines = render("postgres", "postgres/conf/postgresql.conf.j2", **variables).splitlines()
    pairs = [line.split(" = ", 1) for line in lines if line and not line.startswith("#")]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value.strip("'") for name, value in pairs}


def test_the_service_is_confined() -> None:
    service = fragment()["services"]["postgres"]
    assert service["user"] == "70:70"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp", "/var/run/postgresql"]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"] == {"cpus": "2", "memory": "960M", "pids": 256}
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["stop_signal"] == "SIGINT"
    assert service["stop_grace_period"] == "120s"
    assert service["healthcheck"]["interval"] == "30s"
    assert {"start_period", "start_interval", "timeout", "retries"} < set(service["healthcheck"])


def test_nothing_is_published_unless_asked() -> None:
    assert "ports" not in fragment()["services"]["postgres"]
    asked = fragment(postgres_publish=["10.0.0.5:5432:5432"])
    assert asked["services"]["postgres"]["ports"] == ["10.0.0.5:5432:5432"]


def test_mounts_are_a_volume_and_a_read_only_directory() -> None:
    found = fragment(postgres_project_dir="/srv/stack")
    data, conf = found["services"]["postgres"]["volumes"]
    assert (data["type"], data["source"], data["target"]) == ("volume", "postgres_data", "/var/lib/postgresql/data")
    assert (conf["type"], conf["source"], conf["read_only"]) == ("bind", "/srv/stack/postgres/conf", True)
    assert found["volumes"] == {"postgres_data": {}}
    assert found["networks"] == {"tradingbot": {"name": "tradingbot-network", "external": True}}
    assert found["secrets"] == {"postgres_pgpass": {"file": "/srv/stack/secrets/postgres_pgpass"}}
    assert "docker.sock" not in str(found)


@pytest.mark.parametrize(
    "template",
    [
        "postgres/compose.yaml.j2",
        "postgres/conf/postgresql.conf.j2",
        "postgres/conf/pg_hba.conf.j2",
        "sql/apply.sql.j2",
    ],
)
def test_no_clear_password_is_rendered(template: str) -> None:
    text = render("postgres", template, **SECRETS)
    assert text
    assert [value for value in SECRETS.values() if value in text] == []


def test_only_the_superusers_password_recreates_the_container() -> None:
    def label(**changed: str) -> str:
        text = render("postgres", "postgres/compose.yaml.j2", **(SECRETS | changed))
        return str(yaml.safe_load(text)["services"]["postgres"]["labels"]["tradingbot.config-checksum"])

    assert label() == label(postgres_password="another-0123456789abcdef")
    assert label() == label(postgres_owner_password="another-0123456789abcdef")
    assert label() == label(postgres_readonly_password="another-0123456789abcdef")
    assert label() != label(postgres_superuser_password="another-0123456789abcdef")
    assert fragment() == fragment(postgres_settings={"work_mem": "8MB"}, postgres_allowed_networks=["10.0.0.0/8"])


def test_settings_come_from_the_container_not_from_the_host() -> None:
    found = settings(postgres_memory_mb=512, postgres_cpus=1, postgres_max_connections=50)
    assert found["shared_buffers"] == "131072kB"
    assert found["max_connections"] == "50"
    assert found["max_parallel_workers"] == "1"


def test_settings_of_the_specification() -> None:
    wanted = {
        "log_min_duration_statement": "1000ms",
        "shared_preload_libraries": "pg_stat_statements",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
    }
    found = settings()
    assert {name: found[name] for name in wanted} == wanted
    assert "--data-checksums" in fragment()["services"]["postgres"]["environment"]["POSTGRES_INITDB_ARGS"]


def test_own_settings_replace_the_computed_ones_and_are_quoted() -> None:
    found = settings(postgres_settings={"work_mem": "8MB", "log_line_prefix": "it's "})
    assert found["work_mem"] == "8MB"
    assert found["log_line_prefix"] == "it''s "


def test_every_way_in_asks_for_scram() -> None:
    text = render(
        "postgres", "postgres/conf/pg_hba.conf.j2", postgres_allowed_networks=["172.20.0.0/16", "10.1.0.0/24"]
    )
    rules = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert {rule[-1] for rule in rules} == {"scram-sha-256"}
    roles = '"tradingbot_owner","tradingbot","tradingbot_readonly"'
    assert [rule[:-1] for rule in rules] == [
        ["local", "all", "postgres"],
        ["host", "all", "postgres", "127.0.0.1/32"],
        ["host", '"tradingbot"', roles, "172.20.0.0/16"],
        ["host", '"tradingbot"', roles, "10.1.0.0/24"],
    ]


def test_the_password_file_is_escaped_for_libpq() -> None:
    text = evaluate("postgres", "__postgres_secrets.postgres_pgpass", postgres_superuser_password="a:b\\c")
    assert text == "*:*:*:postgres:a\\:b\\\\c\n"


def test_a_good_host_has_no_problem() -> None:
    assert problems("postgres", **ABSENT) == []


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"postgres_memory_mb": 128}, ["postgres_memory_mb"]),
        ({"postgres_memory_mb": 100000}, ["postgres_memory_mb"]),
        ({"postgres_cpus": 16}, ["postgres_cpus"]),
        ({"postgres_cpus": 0}, ["postgres_cpus"]),
        ({"postgres_max_connections": 1000}, ["postgres_max_connections"]),
        ({"postgres_memory_mb": 100, "postgres_cpus": 16}, ["postgres_memory_mb", "postgres_cpus"]),
    ],
)
def test_limits_that_cannot_work_are_found(variables: dict[str, Any], names: list[str]) -> None:
    found = problems("postgres", **ABSENT, **variables)
    assert [problem["what"] for problem in found] == names
    assert all({"what", "why", "fix"} <= set(problem) for problem in found)


@pytest.mark.parametrize(
    ("variables", "name", "why"),
    [
        ({"postgres_owner_password": ""}, "postgres_owner_password", "it is empty"),
        ({"postgres_owner_user": "tradingbot"}, "postgres_owner_user", "tradingbot is the name of another role"),
        ({"postgres_owner_user": "tradingbot_readonly"}, "postgres_owner_user", "is the name of another role"),
        ({"postgres_owner_user": "postgres"}, "postgres_owner_user", "is the name of another role"),
    ],
)
def test_an_owner_that_is_no_role_of_its_own_is_found(variables: dict[str, Any], name: str, why: str) -> None:
    (problem,) = problems("postgres", **ABSENT | variables)
    assert problem["what"] == name
    assert why in problem["why"]
    assert problem["fix"]


def test_data_of_another_major_version_is_found_with_a_way_out() -> None:
    (problem,) = problems(
        "postgres",
        postgres_owner_password=SECRETS["postgres_owner_password"],
        __postgres_data_version={"content": base64.b64encode(b"14\n").decode()},
    )
    assert problem["what"] == "postgres_version"
    assert "PostgreSQL 14" in problem["why"]
    assert 'postgres_version: "14"' in problem["fix"]
    assert "pg_dump" in problem["fix"]


def test_data_is_looked_for_in_the_volume_of_the_project() -> None:
    expected = "/data/volumes/mybot_postgres_data/_data"
    assert (
        evaluate("postgres", "__postgres_data", postgres_docker_root="/data", postgres_project_name="mybot") == expected
    )


def test_only_the_first_start_pulls_so_that_a_lost_registry_keeps_no_database_down(tmp_path: Path) -> None:
    """The superuser's password is an old one, so the server is stopped, and started again."""
    answer = """
case "$*" in
  *" exec "*) echo 'FATAL: password authentication failed' >&2; exit 2 ;;
  *" up "*) echo "$*" >> ups ;;
esac
"""
    tasks = [{"ansible.builtin.include_role": {"name": "tradingbot.stack.postgres", "tasks_from": "run"}}]
    variables = {"postgres_pull": "always", "__postgres_superuser_verifier": "SCRAM-SHA-256$x"}
    said = play(tmp_path, tasks, {"host": answer}, **variables)["host"]
    assert said.startswith("PostgreSQL does not accept the superuser's password")
    assert re.findall(r"--pull (\w+)", (tmp_path / "host/ups").read_text()) == ["always", "never"]


def test_both_slots_of_a_deploy_and_the_worker_fit_into_the_connections() -> None:
    """PostgreSQL keeps three for its superuser, and backups and people come as well."""
    fields = ast.parse((ROOT / "backend/src/tradingbot/core/settings.py").read_text())
    defaults = {
        ast.unparse(node.target): node.value.value
        for node in ast.walk(fields)
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, int)
    }
    # One more for NOTIFY.
    process = defaults["database_pool_size"] + defaults["database_max_overflow"] + defaults["webhook_connections"] + 1
    # Two pools, each with its overflow, and one that listens: tradingbot/worker/main.py.
    worker = (defaults["worker_concurrency"] + 4 + 2) + (defaults["worker_concurrency"] + 1 + 2) + 1
    backend = yaml.safe_load((ROOT / "roles/backend/defaults/main.yml").read_text())
    most = yaml.safe_load((ROOT / "roles/postgres/defaults/main.yml").read_text())["postgres_max_connections"]
    assert 2 * backend["backend_workers"] * process + worker <= most - 3 - 5
