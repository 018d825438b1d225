# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The database: confined, tuned, closed to strangers, and changed with as little disruption as possible."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stack.host import COMPOSE, inspect
from tests.stack.plays import apply_role

CONTAINER = "tradingbot-postgres-1"


def psql(host: Any, sql: str, database: str = "tradingbot") -> str:
    """Return what the superuser, inside the container, gets as an answer."""
    with host.sudo():
        return str(host.check_output(f"{COMPOSE} exec -T postgres psql -XAtq -d %s -c %s", database, sql))


def login(host: Any, user: str, password: str, sql: str, database: str = "tradingbot") -> Any:
    """Run *sql* as *user* from a container beside the database."""
    with host.sudo():
        return host.run(
            "docker run --rm --network tradingbot-network --env PGPASSWORD=%s --entrypoint psql "
            "$(docker inspect --format '{{.Config.Image}}' " + CONTAINER + ") -XAtq -h postgres -U %s -d %s -c %s",
            *(password, user, database, sql),
        )


@pytest.fixture
def restored(host: Any) -> Iterator[None]:
    """Afterwards the host is again as the inventory says."""
    yield
    assert "failed=0" in apply_role(host, "postgres")


@pytest.fixture(scope="module")
def restored_at_the_end(host: Any) -> Iterator[None]:
    """After all of these tests the host is again as the inventory says; each brings its own settings until then."""
    yield
    assert "failed=0" in apply_role(host, "postgres")


def test_its_data_is_a_volume_of_its_own(host: Any) -> None:
    mounts = {mount["Destination"]: mount for mount in inspect(host, "postgres")["Mounts"]}
    volume = mounts["/var/lib/postgresql/data"]
    assert volume["Name"] == "tradingbot_postgres_data"
    with host.sudo():
        assert host.check_output("stat -c '%%u:%%g %%a' %s", volume["Source"]) == "70:70 700"


def test_the_password_file_is_for_the_database_only(host: Any) -> None:
    with host.sudo():
        assert host.check_output("stat -c '%u %a' /opt/tradingbot/secrets/postgres_pgpass") == "70 400"


def test_secrets_show_nowhere(host: Any) -> None:
    with host.sudo():
        secret = host.check_output("cut -d: -f5 /opt/tradingbot/secrets/postgres_pgpass")
        assert len(secret) >= 16
        for command in (f"docker inspect {CONTAINER}", f"docker logs {CONTAINER} 2>&1", "ps axww -o args"):
            assert secret not in host.check_output(command), command
        assert "SCRAM-SHA-256" not in host.check_output(f"docker logs {CONTAINER} 2>&1")
    assert psql(host, "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%SCRAM-SHA-256$%'") == "0"


def test_settings_are_active(host: Any) -> None:
    wanted = {
        "data_checksums": "on",
        "log_min_duration_statement": "1000",
        "password_encryption": "scram-sha-256",
        "TimeZone": "UTC",
        "shared_preload_libraries": "pg_stat_statements",
    }
    rows = psql(host, "SELECT name || '=' || setting FROM pg_settings").splitlines()
    active = dict(row.split("=", 1) for row in rows if "=" in row)
    assert {name: active[name] for name in wanted} == wanted
    memory_kb = inspect(host, "postgres")["HostConfig"]["Memory"] // 1024
    assert int(active["shared_buffers"]) * 8 == memory_kb // 4 // 8 * 8
    assert psql(host, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"
    assert psql(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


def test_a_slow_query_is_logged_without_its_values(host: Any) -> None:
    mark = secrets.token_hex(8)
    psql(host, f"SELECT pg_sleep(1.1) AS slow_{mark}")
    psql(host, f"SELECT pg_sleep(0.1) AS quick_{mark}")
    with host.sudo():
        log = host.check_output(f"docker logs --since 30s {CONTAINER} 2>&1")
    assert f"slow_{mark}" in log
    assert f"quick_{mark}" not in log


def test_extensions_are_there(host: Any) -> None:
    found = psql(host, "SELECT extname FROM pg_extension").splitlines()
    assert {"uuid-ossp", "pg_stat_statements"} <= set(found)
    assert len(psql(host, "SELECT uuid_generate_v4()")) == 36


def test_only_scram_lets_anyone_in(host: Any) -> None:
    rules = psql(host, "SELECT DISTINCT auth_method FROM pg_hba_file_rules").splitlines()
    assert rules == ["scram-sha-256"]
    assert psql(host, "SELECT count(*) FROM pg_authid WHERE rolpassword !~ '^SCRAM-SHA-256'") == "0"
    with host.sudo():
        bare = host.run(f"docker exec --env PGPASSFILE=/dev/null {CONTAINER} psql -w -c 'SELECT 1'")
    assert bare.rc != 0
    assert "no password supplied" in bare.stderr


@pytest.mark.parametrize(
    ("user", "database", "reason"),
    [
        ("tradingbot", "tradingbot", "password authentication failed"),
        ("tradingbot_readonly", "tradingbot", "password authentication failed"),
        ("tradingbot", "postgres", "no pg_hba.conf entry"),
        ("postgres", "postgres", "no pg_hba.conf entry"),
    ],
)
def test_strangers_are_refused(host: Any, user: str, database: str, reason: str) -> None:
    refused = login(host, user, "not-the-password", "SELECT 1", database)
    assert refused.rc == 2
    assert reason in refused.stderr


def test_roles_have_no_more_rights_than_they_need(host: Any) -> None:
    flags = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
    assert psql(host, f"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'tradingbot%' AND ({flags})") == "0"
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'tradingbot'"
    assert psql(host, owner) == "tradingbot"


@pytest.mark.usefixtures("restored_at_the_end")
def test_a_new_readers_password_works_and_reads_only(host: Any) -> None:
    password = secrets.token_hex(16)
    started = inspect(host, "postgres")["State"]["StartedAt"]
    assert "failed=0" in apply_role(host, "postgres", postgres_readonly_password=password)
    assert inspect(host, "postgres")["State"]["StartedAt"] == started
    psql(host, "SET ROLE tradingbot; CREATE TABLE IF NOT EXISTS verify_reader AS SELECT 42 AS answer")
    try:
        assert login(host, "tradingbot_readonly", password, "SELECT answer FROM verify_reader").stdout.strip() == "42"
        refused = login(host, "tradingbot_readonly", password, "INSERT INTO verify_reader VALUES (1)")
        assert "read-only transaction" in refused.stderr
        forced = login(host, "tradingbot_readonly", password, "BEGIN READ WRITE; INSERT INTO verify_reader VALUES (1)")
        assert "permission denied" in forced.stderr
        made = login(host, "tradingbot_readonly", password, "BEGIN READ WRITE; CREATE TABLE verify_more (n int)")
        assert "permission denied" in made.stderr
    finally:
        psql(host, "DROP TABLE verify_reader")


@pytest.mark.usefixtures("restored")
def test_a_new_superusers_password_works(host: Any) -> None:
    password = secrets.token_hex(16)
    assert "failed=0" in apply_role(host, "postgres", postgres_superuser_password=password)
    assert psql(host, "SELECT 1") == "1"
    with host.sudo():
        assert host.check_output("cut -d: -f5 /opt/tradingbot/secrets/postgres_pgpass") == password
    assert "changed=0" in apply_role(host, "postgres", postgres_superuser_password=password)


@pytest.mark.usefixtures("restored_at_the_end")
def test_a_setting_is_reloaded_without_a_restart(host: Any) -> None:
    started = inspect(host, "postgres")["State"]["StartedAt"]
    assert "failed=0" in apply_role(host, "postgres", postgres_settings={"log_min_duration_statement": "900ms"})
    assert psql(host, "SHOW log_min_duration_statement") == "900ms"
    assert inspect(host, "postgres")["State"]["StartedAt"] == started


@pytest.mark.usefixtures("restored_at_the_end")
def test_a_setting_that_needs_it_restarts(host: Any) -> None:
    started = inspect(host, "postgres")["State"]["StartedAt"]
    assert "failed=0" in apply_role(host, "postgres", postgres_settings={"max_locks_per_transaction": 65})
    assert psql(host, "SHOW max_locks_per_transaction") == "65"
    assert inspect(host, "postgres")["State"]["StartedAt"] != started


@pytest.mark.usefixtures("restored_at_the_end")
def test_a_bad_setting_is_refused_and_the_old_one_serves(host: Any) -> None:
    for variables, reason in (
        ({"postgres_settings": {"work_mem": "plenty"}}, "work_mem"),
        ({"postgres_settings": {"work_mem": "plenty"}}, "work_mem"),  # nor does it pass when nothing has changed
        ({"postgres_settings": {"shared_buffers": "plenty"}}, "shared_buffers"),
        ({"postgres_allowed_networks": ["172.20.0.0/99"]}, "invalid CIDR mask"),
    ):
        output = apply_role(host, "postgres", **variables)
        assert "failed=1" in output
        assert reason in output
        assert psql(host, "SELECT 1") == "1"
