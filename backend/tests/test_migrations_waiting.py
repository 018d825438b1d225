"""How long a migration waits, and what it says of who kept it waiting."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import asyncpg
import pytest

from tests.conftest import MakeDatabase
from tests.later_revisions import LaterRevisions
from tradingbot.cli.main import main
from tradingbot.migrations import blockers
from tradingbot.migrations.head import head_revision
from tradingbot.migrations.runner import ADVISORY_LOCK, MigrationSettings, migrate, state_of

HEAD = head_revision()


@pytest.fixture
async def settings(make_database: MakeDatabase) -> MigrationSettings:
    """Settings of a database at head, with short waits."""
    url = await asyncio.to_thread(make_database)
    settings = MigrationSettings.model_validate(
        {"database_url": url, "migrate_wait": 2, "migrate_lock_timeout": 1, "migrate_statement_timeout": 2}
    )
    await migrate(settings)
    return settings


@pytest.fixture
async def somebody(settings: MigrationSettings) -> AsyncIterator[asyncpg.Connection]:
    """A session of somebody else."""
    connection = await asyncpg.connect(
        settings.database_url.get_secret_value(), server_settings={"application_name": "report"}
    )
    yield connection
    await connection.close()


async def test_a_table_in_use_fails_the_migration_in_time_and_is_named(
    settings: MigrationSettings,
    somebody: asyncpg.Connection,
    later: LaterRevisions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("database_url", "migrate_lock_timeout"):
        value = getattr(settings, name)
        monkeypatch.setenv(name.upper(), str(value if isinstance(value, int) else value.get_secret_value()))
    later.add("CREATE TABLE before ()")
    later.add("ALTER TABLE users ADD COLUMN nick text")
    transaction = somebody.transaction()
    await transaction.start()
    await somebody.fetch("SELECT 'a secret of the report' FROM users")

    started = time.monotonic()
    assert await asyncio.to_thread(main, ["migrate"]) == 1
    assert time.monotonic() - started < 10
    said = capsys.readouterr().err
    assert "migration failed, the schema is unchanged: " in said
    assert "canceling statement due to lock timeout" in said
    assert "It waited for AccessExclusiveLock on users, held by pid" in said
    assert (
        f"pid {somebody.get_server_pid()} (user tradingbot, application report, idle in transaction" in said
    )
    assert re.search(r", in a transaction for \d+ s\)", said)
    assert "Let that end, or end it, and migrate again." in said
    assert "secret" not in said
    assert (await state_of(settings)).current == HEAD
    assert await somebody.fetchval("SELECT to_regclass('before')") is None

    await transaction.rollback()
    assert await asyncio.to_thread(main, ["migrate"]) == 0


async def test_another_migration_is_waited_for_in_bounds_and_named(
    settings: MigrationSettings, somebody: asyncpg.Connection, later: LaterRevisions
) -> None:
    later.add("CREATE TABLE more ()")
    await somebody.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    with pytest.raises(Exception, match="lock timeout") as failed:
        await migrate(settings)
    (note,) = failed.value.__notes__
    assert note.startswith("It waited for the lock that migrations take, held by pid")
    assert f"held by pid {somebody.get_server_pid()} (user tradingbot, application report, idle)" in note
    assert (await state_of(settings)).current == HEAD


async def test_a_statement_that_takes_too_long_fails_the_migration(
    settings: MigrationSettings, later: LaterRevisions
) -> None:
    later.add("CREATE TABLE more AS SELECT 1 AS one FROM pg_sleep(20)")
    started = time.monotonic()
    with pytest.raises(Exception, match="statement timeout") as failed:
        await migrate(settings)
    assert time.monotonic() - started < 10
    assert not hasattr(failed.value, "__notes__"), "nobody kept it waiting"
    assert (await state_of(settings)).current == HEAD


async def test_lock_and_limits_are_there_while_revisions_run(
    settings: MigrationSettings, later: LaterRevisions, somebody: asyncpg.Connection
) -> None:
    """Of the session: also in a second revision, and not undone by the end of a transaction."""
    look = (
        "SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement,"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS held"
    )
    later.add(f"CREATE TABLE one AS {look}")
    later.add(f"CREATE TABLE two AS {look}")
    await migrate(settings)
    for table in ("one", "two"):
        assert tuple(await somebody.fetchrow(f"TABLE {table}")) == ("1s", "2s", 1)
    assert await somebody.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_migration_needs_nobody_to_watch_it(
    settings: MigrationSettings, later: LaterRevisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that has no connection to spare for looking is no reason to fail."""

    async def refused(*_arguments: object, **_more: object) -> None:
        raise asyncpg.TooManyConnectionsError("sorry, too many clients already")

    monkeypatch.setattr(blockers, "asyncpg", SimpleNamespace(**{**vars(asyncpg), "connect": refused}))
    number = later.add("CREATE TABLE more ()")
    assert await migrate(settings) == f"migrated {HEAD} -> {number}"
