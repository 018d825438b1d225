"""The schema from nothing to head and back, and two migrations at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conftest import MakeDatabase, execute
from tests.forked import run
from tradingbot.core.database import database_url as to_sqlalchemy
from tradingbot.migrations import runner
from tradingbot.migrations.head import VERSIONS, head_revision
from tradingbot.migrations.metadata import TABLES, metadata
from tradingbot.migrations.runner import ADVISORY_LOCK, MigrationSettings, migrate, state_of


def settings_for(url: str, **changes: int) -> MigrationSettings:
    return MigrationSettings.model_validate({"database_url": url, **changes})


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    return {row[0] for row in rows} - {"alembic_version"}


async def test_empty_to_head_to_base_to_head(make_database: MakeDatabase) -> None:
    url = await asyncio.to_thread(make_database)
    settings = settings_for(url)
    head = head_revision()
    assert await migrate(settings) == f"migrated base -> {head}"
    assert await tables(url) == {table.__tablename__ for table in TABLES}
    assert await migrate(settings) == f"schema already at head {head}"
    assert await migrate(settings, "base") == f"migrated {head} -> base"
    assert await tables(url) == set()
    assert (await state_of(settings)).current is None
    assert await migrate(settings) == f"migrated base -> {head}"


async def test_what_the_first_version_stored_goes_to_head_and_back(make_database: MakeDatabase) -> None:
    """Old signals wait for no order: nothing is traded because of an upgrade."""
    url = await asyncio.to_thread(make_database)
    settings = settings_for(url)
    await migrate(settings, "0001")
    connection = await asyncpg.connect(url)
    user_id = await connection.fetchval("INSERT INTO users (email) VALUES ('a@example.org') RETURNING id")
    await connection.execute(
        "INSERT INTO api_keys (user_id, name, prefix, key_hash) VALUES ($1, 'old', 'tbk_', 'k')", user_id
    )
    strategy_id = await connection.fetchval(
        "INSERT INTO strategies (user_id, name, webhook_token_hash) VALUES ($1, 'old', 't') RETURNING id",
        user_id,
    )
    signal = (
        "INSERT INTO signals (user_id, strategy_id, dedup_key, symbol, action, received_at, payload)"
        " VALUES ($1, $2, $3, 'BTCUSDT', 'buy', now(), '{}') RETURNING id"
    )
    await connection.execute(signal, user_id, strategy_id, "old")

    await migrate(settings)
    new_id = await connection.fetchval(signal, user_id, strategy_id, "new")
    statuses = "SELECT dedup_key, status FROM signals ORDER BY received_at"
    assert [tuple(row) for row in await connection.fetch(statuses)] == [
        ("old", "nothing_to_do"),
        ("new", "queued"),
    ]
    assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
    assert await connection.fetchval("SELECT scopes FROM api_keys") == ["read"]
    assert await connection.fetchval("SELECT sizing FROM strategies") == "alert"
    account_id = await connection.fetchval(
        "INSERT INTO exchange_accounts (user_id, name, exchange, mode) VALUES ($1, 'p', 'paper', 'paper')"
        " RETURNING id",
        user_id,
    )
    await connection.execute("UPDATE strategies SET exchange_account_id = $1", account_id)
    await connection.execute(
        "INSERT INTO orders (user_id, strategy_id, exchange_account_id, signal_id, client_order_id, symbol,"
        " side, quantity) VALUES ($1, $2, $3, $4, 'tb', 'BTCUSDT', 'buy', 1)",
        user_id,
        strategy_id,
        account_id,
        new_id,
    )

    await migrate(settings, "0001")
    assert await connection.fetchval("SELECT count(*) FROM signals") == 2
    assert await connection.fetchval("SELECT name FROM strategies") == "old"
    await migrate(settings)
    await connection.close()


def test_head_is_what_alembic_says() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(runner.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == head_revision()
    assert VERSIONS.is_dir()


async def test_models_and_migrations_agree(migrated_url: str) -> None:
    engine = create_async_engine(to_sqlalchemy(settings_for(migrated_url)))
    async with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts=options), metadata)
        )
    await engine.dispose()
    assert differences == []


def test_two_processes_at_once(make_database: MakeDatabase, environment: dict[str, str]) -> None:
    url = make_database()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run("migrate", DATABASE_URL=url), range(2)))
    assert [one.returncode for one in done] == [0, 0]
    head = head_revision()
    outputs = sorted(one.stdout.strip() for one in done)
    assert outputs == sorted([f"migrated base -> {head}", f"schema already at head {head}"])


async def test_waiting_for_the_lock_is_bounded_and_head_needs_no_lock(make_database: MakeDatabase) -> None:
    url = await asyncio.to_thread(make_database)
    holder = await asyncpg.connect(url)
    await holder.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    with pytest.raises(Exception, match="lock timeout"):
        await migrate(settings_for(url, migrate_wait=1))
    assert await tables(url) == set()
    await holder.execute(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})")
    await migrate(settings_for(url))
    await holder.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    assert "already at head" in await migrate(settings_for(url, migrate_wait=1))
    await holder.close()


def test_check_tells_by_its_exit_code(make_database: MakeDatabase, environment: dict[str, str]) -> None:
    url = make_database()
    before = run("migrate", "--check", DATABASE_URL=url)
    needed = f"schema is at nothing, {head_revision()} is needed: run `tradingbot migrate`"
    assert (before.returncode, before.stdout.strip()) == (1, needed)
    assert run("migrate", DATABASE_URL=url).returncode == 0
    after = run("migrate", "--check", DATABASE_URL=url)
    assert (after.returncode, after.stdout.strip()) == (0, f"schema already at head {head_revision()}")


def test_a_failed_migration_changes_nothing(make_database: MakeDatabase, environment: dict[str, str]) -> None:
    url = make_database()
    execute(url, "CREATE TABLE signals (id int)")
    result = run("migrate", DATABASE_URL=url)
    assert result.returncode == 1
    assert "migration failed, the schema is unchanged" in result.stderr
    assert asyncio.run(tables(url)) == {"signals"}
