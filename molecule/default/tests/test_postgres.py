# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The database: confined, tuned, closed to strangers, and changed with as little disruption as possible."""

from __future__ import annotations

import json
import re
import secrets as random
import shlex
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.stack.api import call
from tests.stack.host import COMPOSE, inspect, one_shot, output_of, services
from tests.stack.plays import apply_role
from tests.testbed import hosts

CONTAINER = "tradingbot-postgres-1"
# Tries statements as the worker, each in a transaction that is rolled back; says what PostgreSQL answers.
TRY = """
import asyncio, asyncpg, json, sys
async def main():
    connection = await asyncpg.connect(open("/run/secrets/database_url").read().strip())
    for statement in json.load(sys.stdin):
        transaction = connection.transaction()
        await transaction.start()
        try:
            print(await connection.execute(statement))
        except asyncpg.PostgresError as error:
            print(error.args[0])
        await transaction.rollback()
asyncio.run(main())
"""
# What a host was like up to 0.3.0, where the service was the owner of all.
OWNED_BY_THE_SERVICE = """
REASSIGN OWNED BY tradingbot_owner TO tradingbot;
DROP OWNED BY tradingbot_owner;
DROP ROLE tradingbot_owner;
"""
# Of later revisions: the backend of today serves on these tables meanwhile.
NAMED_BY_THE_BACKEND = """
ALTER TABLE outbox ADD symbol varchar(64) NOT NULL DEFAULT '';
ALTER TABLE outbox ADD priority bigint NOT NULL DEFAULT 1;
ALTER TABLE signals ADD reduce_only boolean NOT NULL DEFAULT false;
ALTER TABLE orders ADD settled_at timestamptz;
ALTER TABLE halts ADD flatten boolean NOT NULL DEFAULT false;
ALTER TABLE positions ADD min_quantity numeric(38, 18) NOT NULL DEFAULT 0;
ALTER TABLE fills ADD unvalued_fee numeric(38, 18) NOT NULL DEFAULT 0;
CREATE FUNCTION market_of(symbol text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT symbol';
"""
UNNAMED = """
ALTER TABLE outbox DROP symbol, DROP priority;
ALTER TABLE signals DROP reduce_only;
ALTER TABLE orders DROP settled_at;
ALTER TABLE halts DROP flatten;
ALTER TABLE positions DROP min_quantity;
ALTER TABLE fills DROP unvalued_fee;
DROP FUNCTION market_of(text);
"""
OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
"""


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


def as_worker(machine: hosts.Host, *statements: str) -> list[str]:
    """Return what PostgreSQL answers to each of *statements* of the worker; nothing of them stays."""
    command = f"{COMPOSE} exec -T worker python -c {shlex.quote(TRY)}"
    return output_of(machine, command, json.dumps(statements)).splitlines()


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
    mark = random.token_hex(8)
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
        ("tradingbot_owner", "tradingbot", "password authentication failed"),
        ("tradingbot_owner", "postgres", "no pg_hba.conf entry"),
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
    assert psql(host, owner) == "tradingbot_owner"
    assert psql(host, OWNERS) == "tradingbot_owner"
    assert psql(host, "SELECT pg_has_role('tradingbot', 'tradingbot_owner', 'MEMBER')") == "f"


def test_nobody_but_the_superuser_gets_in_from_inside_the_container(host: Any) -> None:
    rules = "SELECT DISTINCT user_name FROM pg_hba_file_rules WHERE type = 'local' OR address = '127.0.0.1'"
    assert psql(host, rules) == "{postgres}"
    for user in ("tradingbot_owner", "tradingbot", "tradingbot_readonly"):
        with host.sudo():
            refused = host.run(f"docker exec {CONTAINER} psql -w -U {user} -d tradingbot -c 'SELECT 1'")
        assert refused.rc == 2
        assert "no pg_hba.conf entry" in refused.stderr


def test_the_service_changes_rows_and_no_tables(machine: hosts.Host) -> None:
    refused = [
        "DROP SCHEMA public CASCADE",
        "DROP TABLE signals",
        "DROP DATABASE tradingbot",
        "CREATE TABLE more ()",
        "CREATE TEMPORARY TABLE more ()",
        "CREATE SCHEMA more",
        "CREATE EXTENSION hstore",
        "ALTER TABLE signals ADD COLUMN more text",
        "TRUNCATE signals CASCADE",
        "SET ROLE tradingbot_owner",
        "CREATE ROLE more",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM fills",
        "UPDATE events SET sequence = 0",
    ]
    said = as_worker(machine, *refused)
    allowed = r"permission denied|must be owner of|cannot run inside a transaction block"
    assert [line for line in said if not re.search(allowed, line)] == []
    assert len(said) == len(refused)
    assert as_worker(machine, "DELETE FROM outbox", "SELECT FROM alembic_version")[1] == "SELECT 1"


def test_the_service_knows_nothing_of_the_owner(machine: hosts.Host, secrets: dict[str, str]) -> None:
    password = secrets["vault_postgres_owner_password"]
    found = services(machine)
    for name in ("backend", "worker"):
        told = output_of(machine, f"docker exec {found[name]['Id']} sh -c 'env; cat /run/secrets/*'")
        assert "tradingbot:" in told
        for owner in (password, "tradingbot_owner", "schema_database_url"):
            assert owner not in told + json.dumps(found[name]), name
    schema = output_of(machine, f"{one_shot(machine)} schema sh -c 'ls /run/secrets; cat /run/secrets/*'")
    assert schema.splitlines() == [
        "database_url",
        f"postgresql://tradingbot_owner:{password}@postgres:5432/tradingbot",
    ]


def test_a_table_that_a_migration_makes_is_usable(host: Any, machine: hosts.Host) -> None:
    psql(host, "SET ROLE tradingbot_owner; CREATE TABLE verify_more (id int GENERATED ALWAYS AS IDENTITY, note text)")
    try:
        assert as_worker(
            machine,
            "INSERT INTO verify_more (note) VALUES ('a')",
            "UPDATE verify_more SET note = 'b'",
            "DELETE FROM verify_more",
            "DROP TABLE verify_more",
        ) == ["INSERT 0 1", "UPDATE 0", "DELETE 0", "must be owner of table verify_more"]
    finally:
        psql(host, "DROP TABLE verify_more")


def test_tables_of_an_earlier_version_get_their_owner_while_alerts_come(
    host: Any, machine: hosts.Host, https_url: str, new_webhook_token: Callable[[], str]
) -> None:
    """Also while somebody reads one of them for some seconds."""
    migrate = f"{one_shot(machine)} schema tradingbot migrate"
    url = f"{https_url}/api/v1/webhooks/tradingview/{new_webhook_token()}"
    output_of(machine, f"{migrate} --downgrade 0003")
    psql(host, f"{NAMED_BY_THE_BACKEND}{OWNED_BY_THE_SERVICE}")
    assert as_worker(machine, "DROP SCHEMA public CASCADE") == ["DROP SCHEMA"]
    count = "SELECT count(*) FROM signals JOIN strategies ON strategy_id = strategies.id"
    before, answers, ended = int(psql(host, count)), [0], threading.Event()

    def send() -> None:
        while not ended.wait(0.3):
            body = {"ticker": "BTCUSDT", "action": "buy", "order_id": str(len(answers))}
            answers.append(call("POST", url, json=body).status_code)

    reads = f"{COMPOSE} exec -T postgres psql -XAtq -d tradingbot -c 'SELECT pg_sleep(8), count(*) FROM signals'"
    output_of(machine, f"nohup {reads} >/dev/null 2>&1 &")
    sender = threading.Thread(target=send)
    sender.start()
    try:
        applied = apply_role(host, "postgres")
    finally:
        ended.set()
        sender.join()
    assert "failed=0" in applied
    assert len(answers) > 5
    assert set(answers[1:]) == {202}
    assert int(psql(host, count)) == before + len(answers) - 1
    assert psql(host, OWNERS) == "tradingbot_owner"
    psql(host, UNNAMED)
    assert "migrated 0003" in output_of(machine, migrate)
    assert as_worker(machine, "DROP SCHEMA public CASCADE") == ["must be owner of schema public"]
    assert "changed=0" in apply_role(host, "postgres")


@pytest.mark.usefixtures("restored_at_the_end")
def test_a_new_readers_password_works_and_reads_only(host: Any) -> None:
    password = random.token_hex(16)
    started = inspect(host, "postgres")["State"]["StartedAt"]
    assert "failed=0" in apply_role(host, "postgres", postgres_readonly_password=password)
    assert inspect(host, "postgres")["State"]["StartedAt"] == started
    psql(host, "SET ROLE tradingbot_owner; CREATE TABLE IF NOT EXISTS verify_reader AS SELECT 42 AS answer")
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
    password = random.token_hex(16)
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
