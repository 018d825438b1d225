# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the backend role puts on a host, and what it refuses, without a host."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT
from small_host import evaluate, problems, render

SECRETS = {
    "backend_database_url": "postgresql://tradingbot:q7Zp2Lw9Xk4rT8vB@postgres:5432/tradingbot",
    "backend_schema_database_url": "postgresql://tradingbot_owner:h5Tb9Wm2Qe7Ru4Ya@postgres:5432/tradingbot",
    "backend_redis_url": "redis://tradingbot:n3Mh6Yd5Lc1Gf0Js@redis:6379/0",
    "backend_secret_key": "k1Nw8Rz5Tq2Vx9Jd6Hs3Pf0Lb7Cm4GyE",
    "backend_webhook_secret": "w4Ej1Uo8Ai5Ds2Kf9Lq6Zx3Cv0Bn7MtY",
    "backend_encryption_key": base64.urlsafe_b64encode(bytes(range(130, 162))).decode(),
}
DEFINITION = "__backend_definition"
HERE = {"role_path": str(ROOT / "roles" / "backend")}
PUBLIC = {
    "backend_public_url": "https://bot.example.com",
    "backend_schema_database_url": SECRETS["backend_schema_database_url"],
}


def fragment(**variables: Any) -> dict[str, Any]:
    text = render("backend", "backend/release.yaml.j2", **(HERE | SECRETS | variables))
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def service(**variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = fragment(**variables)["services"]["backend"]
    return found


def findings(**variables: Any) -> list[str]:
    return [problem["what"] for problem in problems("backend", **(HERE | PUBLIC | SECRETS | variables))]


def test_the_service_is_confined() -> None:
    found = service()
    assert found["user"] == "10001:10001"
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert "cap_add" not in found
    assert "privileged" not in found
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in found["tmpfs"]] == ["/tmp", "/app/logs", "/app/cache"]
    assert all("size=" in mount and ",noexec,nosuid,nodev" in mount for mount in found["tmpfs"])
    assert found["init"] is True
    assert (found["dns_search"], found["dns_opt"]) == (["."], ["ndots:1"])
    assert found["ulimits"] == {"core": 0}
    assert found["restart"] == "unless-stopped"
    assert found["stop_grace_period"] == "40s"
    assert found["deploy"]["resources"]["limits"] == {"cpus": "2", "memory": "2048M", "pids": 256}
    assert found["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    assert found["healthcheck"]["test"] == ["CMD", "tradingbot", "health"]
    assert found["healthcheck"]["interval"] == "30s"
    assert {"start_period", "start_interval", "timeout", "retries"} < set(found["healthcheck"])


def test_the_worker_differs_from_the_web_server_in_little() -> None:
    both = fragment()["services"]
    worker, web = both["worker"], both["backend"]
    assert worker["command"] == ["tradingbot", "worker"]
    assert worker["healthcheck"]["test"] == ["CMD", "tradingbot", "health", "worker"]
    assert worker["deploy"]["resources"]["limits"] == {"cpus": "1", "memory": "512M", "pids": 256}
    assert "ports" not in worker
    # The engine's own measure is 1024.
    assert worker["cpu_shares"] == 512
    assert "cpu_shares" not in web
    own = {"command", "cpu_shares", "deploy", "healthcheck", "ports", "secrets", "memswap_limit"}
    assert {key: worker[key] for key in worker if key not in own} == {key: web[key] for key in web if key not in own}


def test_a_single_run_of_the_command_line_is_not_started_again() -> None:
    both = fragment()["services"]
    tool, web = both["tool"], both["backend"]
    assert tool["restart"] == "no"
    assert not {"healthcheck", "command", "ports"} & set(tool)
    own = {"restart", "deploy", "healthcheck", "secrets", "memswap_limit"}
    assert {key: tool[key] for key in tool if key not in own} == {key: web[key] for key in web if key not in own}


def test_migrations_alone_are_told_the_owners_password() -> None:
    found = fragment()["services"]
    assert found["schema"]["secrets"] == [{"source": "schema_database_url", "target": "database_url"}]
    assert {key: found["schema"][key] for key in found["schema"] if key != "secrets"} == {
        key: found["tool"][key] for key in found["tool"] if key != "secrets"
    }
    for name in ("backend", "worker", "tool"):
        assert "schema_database_url" not in str(found[name]), name
    step = (ROOT / "roles/backend/tasks/schema.yml").read_text()
    assert set(re.findall(r"service: (\w+)", step)) == {"schema"}


def test_a_new_password_of_the_owner_is_no_new_release() -> None:
    assert fragment() == fragment(backend_schema_database_url="postgresql://tradingbot_owner:other@postgres/tradingbot")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "is not set"),
        ("postgresql://tradingbot:service-0123456789abcdef@postgres:5432/tradingbot", "has the same role"),
        ("postgresql://tradingbot:another-0123456789abcdef@elsewhere/tradingbot", "has the same role"),
        ("postgresql://tradingbot_owner@postgres:5432/tradingbot", "has no password"),
        # Its password is not percent-encoded, and stands where the port would.
        ("postgresql://tradingbot_owner:0123456789abcdef/x@postgres:5432/tradingbot", "is not the address"),
    ],
)
def test_migrations_need_a_role_of_their_own(url: str, why: str) -> None:
    given = HERE | PUBLIC | SECRETS | {"backend_schema_database_url": url}
    (problem,) = problems("backend", **given)
    assert problem["what"] == "backend_schema_database_url"
    assert why in problem["why"]
    assert "00-wiring.yml" in problem["fix"]
    assert "0123456789abcdef" not in str(problem)


def test_a_release_publishes_nothing_and_has_no_address() -> None:
    """Both belong to the slot that it runs in."""
    for name, described in fragment()["services"].items():
        assert "ports" not in described, name
        assert described["networks"] == ["tradingbot"], name


def test_two_releases_differ_when_anything_of_them_does() -> None:
    def release(**variables: Any) -> str:
        changed = HERE | SECRETS | variables
        return str(evaluate("backend", "__backend_release", **changed, **{DEFINITION: str(fragment(**changed))}))

    assert release().startswith("0.3.0-")
    assert release() == release()
    others = [release(backend_version="0.3.1"), release(backend_workers=3), release(backend_secret_key="x" * 40)]
    assert len({release(), *others}) == 4


def test_the_models_are_the_only_mount_and_read_only() -> None:
    found = fragment(backend_project_dir="/srv/stack")
    mounts = {mount["target"]: mount for mount in found["services"]["backend"]["volumes"]}
    assert {target: mount["read_only"] for target, mount in mounts.items()} == {
        "/app/models": True,
    }
    assert mounts["/app/models"]["source"] == "/srv/stack/models"
    assert found["networks"] == {"tradingbot": {"name": "tradingbot-network", "external": True}}
    assert "docker.sock" not in str(found)


def test_secrets_are_files_and_nowhere_else() -> None:
    found = fragment()
    names = ["database_url", "redis_url", "secret_key", "webhook_secret", "encryption_key"]
    names += ["encryption_key_old", "notify_urls", "sentry_dsn"]
    assert found["services"]["worker"]["secrets"] == names
    assert found["services"]["backend"]["secrets"] == [name for name in names if name != "notify_urls"]
    assert found["services"]["tool"]["secrets"] == ["database_url"]
    names.append("schema_database_url")
    assert found["secrets"] == {name: {"file": f"/opt/tradingbot/secrets/{name}"} for name in names}
    text = str(found)
    for value in (*SECRETS.values(), "q7Zp2Lw9Xk4rT8vB", "h5Tb9Wm2Qe7Ru4Ya", "n3Mh6Yd5Lc1Gf0Js"):
        assert value not in text


def test_no_service_of_a_release_swaps() -> None:
    for name, described in fragment(backend_memory_mb=1536)["services"].items():
        assert described["memswap_limit"] == described["deploy"]["resources"]["limits"]["memory"], name


def test_settings_reach_the_service_as_text() -> None:
    found = service(
        backend_environment="development",
        backend_cors_origins=["https://a.example", "https://b.example"],
        backend_binance_testnet=False,
        backend_docs_enabled=False,
        backend_public_url="https://bot.example.com",
        backend_forwarded_allow_ips=["172.20.0.0/16"],
        backend_workers=3,
        backend_extra_environment={"DATABASE_POOL_SIZE": 7, "NOTE": "costs $5"},
    )["environment"]
    assert found == {
        "ENVIRONMENT": "development",
        "CORS_ORIGINS": "https://a.example,https://b.example",
        "BINANCE_TESTNET": "false",
        "DOCS_ENABLED": "false",
        "PUBLIC_URL": "https://bot.example.com",
        "FORWARDED_ALLOW_IPS": "172.20.0.0/16",
        "LOG_LEVEL": "info",
        "WORKERS": "3",
        "DATABASE_POOL_SIZE": "7",
        "NOTE": "costs $$5",
    }


@pytest.mark.parametrize(("environment", "shown"), [("production", "false"), ("development", "true")])
def test_the_documentation_is_hidden_in_production(environment: str, shown: str) -> None:
    assert service(backend_environment=environment)["environment"]["DOCS_ENABLED"] == shown


@pytest.mark.parametrize("name", [name for name in SECRETS if name != "backend_schema_database_url"])
def test_another_secret_makes_the_container_anew(name: str) -> None:
    def label(**variables: Any) -> str:
        return str(service(**variables)["labels"]["tradingbot.config-checksum"])

    assert label() == label(backend_log_level="debug")
    assert label(**{name: SECRETS[name] + "x"}) != label()


def test_a_built_image_is_named_after_its_sources(tmp_path: Path) -> None:
    copy = tmp_path / "backend"
    shutil.copytree(ROOT / "backend", copy, ignore=shutil.ignore_patterns("__pycache__", "tests", ".*_cache"))
    name = service(backend_version="1.2.3")["image"]
    assert name.startswith("tradingbot-backend:1.2.3-")
    assert service(backend_version="1.2.3", backend_build_context=str(copy))["image"] == name
    with_model = service(backend_version="1.2.3", backend_build_extras=["inference"])["image"]
    assert with_model.startswith("tradingbot-backend:1.2.3-")
    assert with_model != name
    both = [service(backend_build_extras=extras)["image"] for extras in (["a", "b"], ["b", "a"])]
    assert both[0] == both[1]
    (copy / "src" / "tradingbot" / "new.py").write_text("")
    assert service(backend_version="1.2.3", backend_build_context=str(copy))["image"] != name


@pytest.mark.parametrize("image", ["registry.example/bot:1.2.3", "registry.example/bot@sha256:" + "0" * 64])
def test_a_given_image_keeps_a_name_of_ours(image: str) -> None:
    """Without a look at sources that need not be there."""
    given = {"backend_image": image, "backend_build_context": "/nowhere", "__backend_pulled_tag": "1.2.3-0123456789ab"}
    assert service(**given)["image"] == "tradingbot-backend:1.2.3-0123456789ab"
    assert findings(backend_image=image, backend_build_context="/nowhere") == []


def test_a_build_sees_only_the_files_that_are_given() -> None:
    def given(**variables: Any) -> dict[str, str]:
        return dict(evaluate("backend", "__backend_build_secrets", **variables))

    assert given() == {}
    assert given(backend_build_pip_conf="/etc/pip.conf") == {"pip_conf": "/etc/pip.conf"}


def test_a_good_host_has_no_problem() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"backend_workers": 30}, ["backend_memory_mb"]),
        ({"backend_memory_mb": 100000}, ["backend_memory_mb"]),
        ({"backend_cpus": 16}, ["backend_cpus"]),
        ({"backend_cpus": 0}, ["backend_cpus"]),
        ({"backend_worker_memory_mb": 100000}, ["backend_worker_memory_mb"]),
        ({"backend_worker_cpus": 16}, ["backend_worker_cpus"]),
        ({"backend_models": [{"name": "m", "version": "1", "src": "/nowhere"}]}, ["backend_models"]),
        ({"backend_workers": 0}, ["backend_workers"]),
        ({"backend_workers": 65, "backend_memory_mb": 3900}, ["backend_workers", "backend_memory_mb"]),
        ({"backend_worker_memory_mb": 64}, ["backend_worker_memory_mb"]),
        ({"backend_cors_origins": ["https://a.example", "http://[::1]:3000/"]}, []),
        ({"backend_cors_origins": ["https://a.example/path"]}, ["backend_cors_origins"]),
        ({"backend_cors_origins": ["*"]}, ["backend_cors_origins"]),
        ({"backend_cors_origins": ["*"], "backend_environment": "development"}, []),
        ({"backend_extra_environment": {"SLOW_QUERY_MS": 100}}, []),
        ({"backend_extra_environment": {"LOG_LEVEL": "debug"}}, ["backend_extra_environment"]),
        ({"backend_extra_environment": {"SENTRY_DSN": "any"}}, ["backend_extra_environment"]),
        ({"backend_stop_grace_period": "29s"}, ["backend_stop_grace_period"]),
        ({"backend_stop_grace_period": "30s"}, []),
        ({"backend_stop_grace_period": "1m"}, ["backend_stop_grace_period"]),
        ({"backend_extra_environment": {"WORKER_SHUTDOWN_TIMEOUT": 60}}, ["backend_stop_grace_period"]),
        ({"backend_extra_environment": {"SHUTDOWN_TIMEOUT": "31"}}, ["backend_stop_grace_period"]),
        ({"backend_notify_urls": "tgram://token/chat\njson://host.example/,ntfy://topic"}, []),
        ({"backend_notify_urls": "json://host.example/ slack"}, ["backend_notify_urls"]),
        ({"backend_sentry_dsn": "https://0123456789abcdef@errors.example/1"}, []),
        ({"backend_sentry_dsn": "https://errors.example/1"}, ["backend_sentry_dsn"]),
        ({"backend_notify_urls": " ", "backend_sentry_dsn": "\n"}, []),
        (
            {"backend_database_url": "", "backend_webhook_secret": "short"},
            ["backend_database_url", "backend_webhook_secret"],
        ),
        ({"backend_redis_url": "redis://tradingbot:changeme@redis:6379/0"}, ["backend_redis_url"]),
        ({"backend_secret_key": SECRETS["backend_webhook_secret"]}, ["backend_secret_key, backend_webhook_secret"]),
        ({"backend_public_url": "http://bot.example.com"}, ["backend_public_url"]),
        ({"backend_public_url": "http://bot.example.com", "backend_environment": "development"}, []),
        ({"backend_build_context": "/nowhere"}, ["backend_build_context"]),
        *[({"backend_version": version}, []) for version in ("0.3.0", "v1_rc.2-x", "_", "1" * 91)],
        *[
            ({"backend_version": version}, ["backend_version"])
            for version in ("", "a b", "1/2", ".1", "-1", "1+2", "1:2", "1\n", "ä", "1" * 92)
        ],
    ],
)
def test_what_cannot_work_is_found(variables: dict[str, Any], names: list[str]) -> None:
    assert findings(**variables) == names


def test_a_refusal_names_the_variable_to_set_and_shows_no_secret() -> None:
    given: dict[str, Any] = {"backend_extra_environment": {"SECRET_KEY": "hidden-1", "LOG_LEVEL": "debug"}}
    given |= {"backend_notify_urls": "hidden-2", "backend_sentry_dsn": "hidden-3"}
    found = problems("backend", **(HERE | PUBLIC | SECRETS | given))
    assert [problem["what"] for problem in found] == [*given]
    assert "LOG_LEVEL, SECRET_KEY" in found[0]["why"]
    assert "`backend_log_level`, `backend_secret_key`" in found[0]["fix"]
    assert "hidden" not in str([{**problem, "found": ""} for problem in found])
