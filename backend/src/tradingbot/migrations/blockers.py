"""Who keeps a migration waiting. PostgreSQL's own message about a lock that was not got names nobody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tradingbot.core.address import plain_dsn
from tradingbot.core.settings import DatabaseSettings
from tradingbot.core.tasks import stop

_PAUSE = 0.25

# Without the text of the blocker's statement, which may hold anybody's data.
_BLOCKERS = """
SELECT
    coalesce((
        SELECT CASE
            WHEN wanted.relation IS NOT NULL THEN wanted.mode || ' on ' || wanted.relation::regclass::text
            WHEN wanted.locktype = 'advisory' THEN 'the lock that migrations take'
        END
        FROM pg_locks AS wanted WHERE wanted.pid = $1 AND NOT wanted.granted LIMIT 1
    ), 'a lock') AS wanted,
    string_agg(format(
        'pid %s (user %s, application %s, %s%s)',
        holder.pid, holder.usename, coalesce(nullif(holder.application_name, ''), 'unknown'),
        coalesce(holder.state, 'in a state that is not shown'),
        coalesce(', in a transaction for '
            || round(extract(epoch FROM clock_timestamp() - holder.xact_start)) || ' s', '')
    ), ', ' ORDER BY holder.pid) AS holders
FROM pg_stat_activity AS holder WHERE holder.pid = ANY (pg_blocking_pids($1))
HAVING count(*) > 0
"""


class _Sight:
    """What was seen last."""

    text: str | None = None


@asynccontextmanager
async def watching_for_blockers(settings: DatabaseSettings, process_id: int) -> AsyncIterator[None]:
    """Notes on an error within whom the session `process_id` waited for last, if for anybody.

    It looks by a connection of its own. Not to see anything is no failure: the migration goes on.
    """
    sight = _Sight()
    watcher = asyncio.create_task(_watch(settings, process_id, sight))
    try:
        yield
    except Exception as error:
        if sight.text is not None:
            error.add_note(f"{sight.text}. Let that end, or end it, and migrate again.")
        raise
    finally:
        await stop(watcher)


async def _watch(settings: DatabaseSettings, process_id: int, sight: _Sight) -> None:
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection = await asyncpg.connect(
            plain_dsn(settings.database_url.get_secret_value()),
            timeout=settings.database_connect_timeout,
            command_timeout=settings.database_command_timeout,
            server_settings={"application_name": "tradingbot migrate, watching"},
        )
        try:
            while True:
                seen = await connection.fetchrow(_BLOCKERS, process_id)
                sight.text = seen and f"It waited for {seen['wanted']}, held by {seen['holders']}"
                await asyncio.sleep(_PAUSE)
        finally:
            connection.terminate()
