"""The backend's container does what its settings say, and says what is wrong when it cannot."""

from __future__ import annotations

import json
import re
import secrets as random
import subprocess
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.stack.api import call
from tests.stack.host import COMPOSE, one_shot, output_of, run_on, services, worker_processes
from tests.stack.plays import SITE, play
from tests.testbed import hosts

ASK = """
import json, sys, time, urllib.error, urllib.request
deadline = time.monotonic() + 30
while True:
    try:
        answer = urllib.request.urlopen(f"http://{sys.argv[1]}:8001{sys.argv[2]}", timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
        continue
    print(answer.status)
    break
"""


@pytest.fixture
def other_secrets(machine: hosts.Host) -> Iterator[Callable[[str, str], str]]:
    """Makes a folder with the backend's secrets but for one, and gives the options that mount it."""
    folder = f"/run/tradingbot-test-{random.token_hex(4)}"
    names = "database_url redis_url secret_key webhook_secret encryption_key"
    output_of(machine, f"install -d -o 10001 -m 0700 {folder} && cd /opt/tradingbot/secrets && cp -p {names} {folder}/")

    def replace(name: str, value: str) -> str:
        output_of(machine, f"chmod 600 {folder}/{name} && cat > {folder}/{name} && chmod 400 {folder}/{name}", value)
        return f"--volume {folder}:/tmp/secrets:ro --env SECRETS_DIR=/tmp/secrets"

    yield replace
    output_of(machine, f"rm -r {folder}")


def test_it_has_its_workers_and_limits(machine: hosts.Host) -> None:
    found = services(machine)["backend"]
    cores = int(output_of(machine, "nproc"))
    assert found["HostConfig"]["NanoCpus"] == min(2, cores) * 10**9
    assert found["HostConfig"]["Memory"] == 2048 << 20
    assert len(worker_processes(machine)) == 4


def test_the_check_shows_what_it_found(machine: hosts.Host) -> None:
    told = output_of(machine, f"{COMPOSE} exec -T worker tradingbot check")
    rows = [re.split(r"\s{2,}", line) for line in told.splitlines()]
    assert len(rows) == 7
    assert {row[1] for row in rows} == {"ok"}
    assert rows[0][2] == "development, Binance testnet on"


def test_a_second_migration_says_that_all_is_done(machine: hosts.Host) -> None:
    for _ in range(2):
        assert re.fullmatch(
            r"schema already at head \d{4}", output_of(machine, f"{one_shot(machine)} tool tradingbot migrate")
        )
    assert "already at head" in output_of(machine, f"{COMPOSE} exec -T worker tradingbot migrate --check")


@pytest.mark.parametrize(
    ("environment", "enabled", "status"),
    [("production", "", 404), ("production", "true", 200), ("development", "false", 404), ("development", "", 200)],
)
def test_docs_are_served_where_the_setting_says_so(
    machine: hosts.Host, environment: str, enabled: str, status: int
) -> None:
    name = f"tradingbot-test-docs-{random.token_hex(4)}"
    settings = f"--env ENVIRONMENT={environment} --env DOCS_ENABLED={enabled} --env WORKERS=1"
    output_of(machine, f"{one_shot(machine)} --detach --name {name} {settings} backend")
    try:
        for path in ("/docs", "/openapi.json"):
            assert output_of(machine, f"docker exec -i {name} python - 127.0.0.1 {path}", ASK) == str(status)
        assert output_of(machine, f"docker exec -i {name} python - 127.0.0.1 /api/v1/health", ASK) == "200"
    finally:
        output_of(machine, f"docker rm --force {name}")


def test_docs_of_this_host_are_served_through_nginx(https_url: str) -> None:
    page = call("GET", f"{https_url}/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["Content-Type"]
    described = call("GET", f"{https_url}/openapi.json").json()
    assert "/api/v1/webhooks/tradingview/{token}" in described["paths"]


def test_health_is_as_promised(machine: hosts.Host, https_url: str) -> None:
    answer = call("GET", f"{https_url}/api/v1/health")
    version = output_of(machine, f"{COMPOSE} exec -T worker tradingbot version").split()[-1]
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "version": version})


@pytest.mark.parametrize(("origin", "allowed"), [("http://localhost:3000", True), ("https://evil.example", False)])
def test_only_configured_origins_may_call(https_url: str, origin: str, allowed: bool) -> None:
    answer = call("GET", f"{https_url}/api/v1/health", headers={"Origin": origin})
    assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


def test_a_webhooks_address_is_the_public_one(backend_cli: Callable[..., dict[str, str]], https_url: str) -> None:
    name = f"public-{random.token_hex(4)}"
    told = backend_cli("strategy", "create", "--user", "tests@example.com", "--name", name)
    assert told["webhook_url"].startswith(f"{https_url}/api/v1/webhooks/tradingview/tbw_")


NO_DATABASE = [
    (
        "database_url",
        "postgresql://tradingbot:{password}@postgres:5432/tradingbot",
        "PostgreSQL at postgres:5432 refuses user tradingbot: wrong password or user",
    ),
    (
        "database_url",
        "postgresql://tradingbot:{password}@nowhere:5432/tradingbot",
        "PostgreSQL at nowhere:5432 does not answer: its name does not resolve",
    ),
]
NO_REDIS = [
    (
        "redis_url",
        "redis://tradingbot:{password}@redis:6379/0",
        "Redis at redis:6379 refuses user tradingbot: wrong password or user",
    ),
    (
        "redis_url",
        "redis://tradingbot:{password}@redis:6380/0",
        "Redis at redis:6380 does not answer: connection refused",
    ),
]


def says(done: subprocess.CompletedProcess[str], reason: str, password: str) -> None:
    """Require that a command fails for *reason*, and shows neither the password nor a traceback."""
    assert done.returncode == 1
    assert reason in done.stdout
    for text in (done.stdout, done.stderr):
        assert password not in text
        assert "Traceback" not in text


@pytest.mark.parametrize(("name", "url", "reason"), NO_DATABASE + NO_REDIS)
def test_the_check_names_what_does_not_answer(
    machine: hosts.Host, other_secrets: Callable[[str, str], str], name: str, url: str, reason: str
) -> None:
    password = random.token_urlsafe(24)
    options = other_secrets(name, url.format(password=quote(password, safe="")))
    says(run_on(machine, f"{one_shot(machine)} {options} backend tradingbot check"), reason, password)


@pytest.mark.parametrize(("name", "url", "reason"), NO_DATABASE)
def test_without_the_database_the_service_gives_up_after_a_bounded_wait(
    machine: hosts.Host, other_secrets: Callable[[str, str], str], name: str, url: str, reason: str
) -> None:
    password = random.token_urlsafe(24)
    options = other_secrets(name, url.format(password=quote(password, safe="")))
    start = time.monotonic()
    says(run_on(machine, f"{one_shot(machine)} {options} --env STARTUP_TIMEOUT=2 backend"), reason, password)
    assert time.monotonic() - start < 20


def test_a_weak_secret_is_refused_without_showing_it(
    machine: hosts.Host, other_secrets: Callable[[str, str], str]
) -> None:
    options = other_secrets("secret_key", "change-me-please")
    refused = run_on(machine, f"{one_shot(machine)} {options} backend")
    assert refused.returncode == 2
    assert "SECRET_KEY is a placeholder" in refused.stderr
    assert "change-me-please" not in refused.stdout + refused.stderr


def test_a_play_stops_when_the_migration_fails(machine: hosts.Host, inventory: str) -> None:
    """It says why, and the service that runs is left alone."""
    started = services(machine)["backend"]["State"]["StartedAt"]
    password = random.token_hex(16)
    url = f"postgresql://tradingbot:{password}@postgres:5432/tradingbot"
    try:
        failed = play(inventory, SITE, "--tags", "backend", "--extra-vars", json.dumps({"backend_database_url": url}))
        assert failed.code != 0
        assert "Ask the new version what it would do to the schema" in failed.said
        assert "refuses user tradingbot: wrong password or user" in failed.said
        assert password not in failed.said
        assert services(machine)["backend"]["State"]["StartedAt"] == started
    finally:
        restored = play(inventory, SITE, "--tags", "backend")
    assert restored.code == 0, restored.said
    assert services(machine)["backend"]["State"]["StartedAt"] == started
