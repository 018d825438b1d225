"""Moves the schema to a revision: once, whoever else tries at the same time."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from tradingbot.core.database import database_url
from tradingbot.core.settings import DatabaseSettings
from tradingbot.health.service import current_revision
from tradingbot.migrations.head import head_revision

# Any fixed number does, as long as nothing else in this database locks the same one.
ADVISORY_LOCK = 0x7472616465  # "trade"
BASE = "base"


class MigrationSettings(DatabaseSettings):
    """How long to wait (seconds): for another migration, for a table in use, and for one statement."""

    migrate_wait: int = 300
    migrate_lock_timeout: int = 10
    migrate_statement_timeout: int = 600


async def migrate(settings: MigrationSettings, target: str | None = None) -> str:
    """Moves the schema to `target` (default: head) and tells what was done.

    At head already, nothing is locked. Else a session's advisory lock lets one process at a time go on, and
    the steps run in one transaction: a failure leaves the schema as it was.

    Raises:
        sqlalchemy.exc.DBAPIError: a lock or a statement took longer than allowed, or PostgreSQL refused.
    """
    engine = create_async_engine(
        database_url(settings),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "server_settings": {"application_name": "tradingbot migrate"},
        },
    )
    try:
        async with engine.connect() as connection:
            if await _is_at(connection, target):
                return _already(target)
            await _lock(connection, settings)
            before = await current_revision(connection)
            if await _is_at(connection, target):
                return _already(target)
            await connection.run_sync(_run, target)
            after = await current_revision(connection)
            await connection.commit()
            return f"migrated {before or BASE} -> {after or BASE}"
    finally:
        await engine.dispose()


async def revision_of(settings: DatabaseSettings) -> str | None:
    """Gives the revision of the schema; None if there is none yet."""
    engine = create_async_engine(
        database_url(settings),
        poolclass=NullPool,
        connect_args={"timeout": settings.database_connect_timeout},
    )
    try:
        async with engine.connect() as connection, asyncio.timeout(settings.database_command_timeout):
            return await current_revision(connection)
    finally:
        await engine.dispose()


async def _is_at(connection: AsyncConnection, target: str | None) -> bool:
    revision = await current_revision(connection)
    await connection.rollback()
    return (revision or BASE) == (target or head_revision())


async def _lock(connection: AsyncConnection, settings: MigrationSettings) -> None:
    """The lock belongs to the session: it ends with the connection, however that ends."""
    await connection.execute(text(f"SET lock_timeout = '{settings.migrate_wait}s'"))
    await connection.execute(text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
    await connection.execute(text(f"SET lock_timeout = '{settings.migrate_lock_timeout}s'"))
    await connection.execute(text(f"SET statement_timeout = '{settings.migrate_statement_timeout}s'"))
    await connection.commit()


def _already(target: str | None) -> str:
    return f"schema already at head {head_revision()}" if target is None else f"schema already at {target}"


def _run(connection: Connection, target: str | None) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    script = head_revision() if target is None else target
    if _goes_back(connection, script):
        command.downgrade(config, script)
    else:
        command.upgrade(config, script)


def _goes_back(connection: Connection, target: str) -> bool:
    exists = connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    current = connection.scalar(text("SELECT version_num FROM alembic_version")) if exists else None
    return target == BASE or (current is not None and target < str(current))
