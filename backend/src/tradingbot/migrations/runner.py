"""Moves the schema to a revision: once, whoever else tries at the same time."""

from collections.abc import Sequence
from typing import Any

from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tradingbot.core.database import database_url
from tradingbot.core.settings import DatabaseSettings
from tradingbot.migrations.blockers import watching_for_blockers
from tradingbot.migrations.head import head_revision, oldest_for, revisions
from tradingbot.migrations.scripts import alembic_config
from tradingbot.migrations.state import SchemaState, read_state

# Any fixed number does, as long as nothing else in this database locks the same one.
ADVISORY_LOCK = 0x7472616465  # "trade"
BASE = "base"

_KEEP_OLDEST = text(
    "INSERT INTO schema_compatibility (oldest) VALUES (:oldest)"
    " ON CONFLICT (only_row) DO UPDATE SET oldest = excluded.oldest"
)


class MigrationSettings(DatabaseSettings):
    """How long to wait (seconds): for another migration, for a table in use, and for one statement."""

    migrate_wait: int = 300
    migrate_lock_timeout: int = 10
    migrate_statement_timeout: int = 600


class MigrationRefusedError(Exception):
    """This version cannot move the schema; the message says why, and what can."""


async def migrate(settings: MigrationSettings, target: str | None = None) -> str:
    """Moves the schema to `target` (default: head) and tells what was done.

    Where nothing is to be done, nothing is locked; so it is where a later version has migrated already, in a
    way that this one can live with. Else a session's advisory lock lets one process at a time go on, and
    the steps run in one transaction: a failure leaves the schema as it was.

    Raises:
        MigrationRefusedError: the schema is out of this version's reach.
        sqlalchemy.exc.DBAPIError: a lock or a statement took longer than allowed, or PostgreSQL refused. If
            it waited for somebody, a note of the error names them.
    """
    engine = _engine(settings)
    try:
        async with engine.connect() as connection:
            done = _nothing_to_do(await _state(connection), target)
            if done is not None:
                return done
            async with watching_for_blockers(settings, await _process_id(connection)):
                return await _move(connection, settings, target)
    finally:
        await engine.dispose()


async def state_of(settings: DatabaseSettings) -> SchemaState:
    """Gives where the schema is."""
    engine = _engine(settings)
    try:
        async with engine.connect() as connection:
            return await _state(connection)
    finally:
        await engine.dispose()


def _engine(settings: DatabaseSettings) -> AsyncEngine:
    return create_async_engine(
        database_url(settings),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "server_settings": {"application_name": "tradingbot migrate"},
        },
    )


async def _move(connection: AsyncConnection, settings: MigrationSettings, target: str | None) -> str:
    await _lock(connection, settings)
    before = await _state(connection)
    done = _nothing_to_do(before, target)  # somebody else was faster
    if done is not None:
        return done
    goal = target or head_revision()
    # Here, as Python 3.11 may fail to parse sources within a greenlet, which `run_sync` is.
    oldest = oldest_for(goal)
    # One transaction for the steps and for what the schema says of itself.
    async with connection.begin():
        await connection.run_sync(_run, before.current, goal, oldest)
    after = await _state(connection)
    return f"migrated {before.current or BASE} -> {after.current or BASE}"


async def _state(connection: AsyncConnection) -> SchemaState:
    async def fetch_row(query: str) -> Sequence[Any] | None:
        return (await connection.execute(text(query))).first()

    state = await read_state(fetch_row)
    await connection.rollback()
    return state


async def _process_id(connection: AsyncConnection) -> int:
    process_id = await connection.scalar(text("SELECT pg_backend_pid()"))
    await connection.rollback()
    return int(process_id)


async def _lock(connection: AsyncConnection, settings: MigrationSettings) -> None:
    """Lock and time-outs belong to the session: they end with the connection, however that ends."""
    await connection.execute(text(f"SET lock_timeout = '{settings.migrate_wait}s'"))
    await connection.execute(text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
    await connection.execute(text(f"SET lock_timeout = '{settings.migrate_lock_timeout}s'"))
    await connection.execute(text(f"SET statement_timeout = '{settings.migrate_statement_timeout}s'"))
    await connection.commit()


def _nothing_to_do(state: SchemaState, target: str | None) -> str | None:
    """Tells why there is nothing to do; None if there is something."""
    if target is None:
        return _nothing_to_head(state)
    if (state.current or BASE) == target:
        return f"schema already at {target}"
    known = {BASE, *(revision.number for revision in revisions())}
    if target not in known:
        raise MigrationRefusedError(f"there is no revision {target}; the newest is {head_revision()}")
    if (state.current or BASE) not in known:
        raise MigrationRefusedError(
            f"schema is at {state.current}, which this version does not know (its newest is"
            f" {head_revision()}): only a version that knows it can go back from it"
        )
    return None


def _nothing_to_head(state: SchemaState) -> str | None:
    head = head_revision()
    if state.current == head:
        return f"schema already at head {head}"
    if not state.is_newer:
        return None
    if state.problem is not None:
        raise MigrationRefusedError(f"schema is {state.problem}")
    return f"schema at {state.current}, later than head {head}, which can live with it: nothing to do"


def _run(connection: Connection, current: str | None, target: str, oldest: str) -> None:
    config = alembic_config(connection=connection)
    if target == BASE or (current is not None and target < current):
        command.downgrade(config, target)
    else:
        command.upgrade(config, target)
    # Below the revision that makes the table there is nowhere to say it.
    if connection.scalar(text("SELECT to_regclass('schema_compatibility') IS NOT NULL")):
        connection.execute(_KEEP_OLDEST, {"oldest": oldest})
