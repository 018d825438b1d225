"""Hears PostgreSQL's NOTIFY on a connection of its own, and wakes the work loops."""

import asyncio
from typing import Any

import asyncpg
import structlog

from tradingbot.core.address import plain_dsn
from tradingbot.core.settings import DatabaseSettings
from tradingbot.outbox.repository import CHANNEL
from tradingbot.worker.pause import pause

log = structlog.stdlib.get_logger("tradingbot.worker")

_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
# A connection that is silent is asked for a sign of life so often (seconds).
_CHECK = 10.0


class Listener:
    """Sets `wake` when there may be work. What it misses the loops find when they poll."""

    def __init__(self, settings: DatabaseSettings, wake: asyncio.Event) -> None:
        self._settings = settings
        self._wake = wake

    async def run(self) -> None:
        """Listens until cancelled; connects again for as long as it takes."""
        attempt = 0
        while True:
            connection = None
            try:
                connection = await asyncpg.connect(
                    plain_dsn(self._settings.database_url.get_secret_value()),
                    timeout=self._settings.database_connect_timeout,
                    command_timeout=self._settings.database_command_timeout,
                    server_settings={"application_name": "tradingbot worker"},
                )
                await connection.add_listener(CHANNEL, self._heard)
                attempt = 0
                # Something may have been queued while nobody listened.
                self._wake.set()
                await self._stay(connection)
            except _ERRORS as error:
                if attempt == 0:
                    log.warning("not listening for work, polling", reason=type(error).__name__)
                attempt += 1
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(pause(attempt, 0.1, 5.0))

    async def _stay(self, connection: Any) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _connection: closed.set())
        while not closed.is_set():
            try:
                async with asyncio.timeout(_CHECK):
                    await closed.wait()
            except TimeoutError:
                await connection.fetchval("SELECT 1")

    def _heard(self, *_arguments: Any) -> None:
        self._wake.set()
