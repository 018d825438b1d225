"""Connections to PostgreSQL without SQLAlchemy in between, for the few statements that have to be fast."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from tradingbot.core.address import plain_dsn
from tradingbot.core.database import is_unavailable
from tradingbot.core.settings import DatabaseSettings


class DirectConnection:
    """One connection: opened when first used, given up when it breaks or is silent, and then opened again.

    It is for one task at a time. Every statement is a transaction of its own, committed when we have its rows.
    """

    def __init__(self, settings: DatabaseSettings, timeout: float, **server_settings: str) -> None:
        self._url = plain_dsn(settings.database_url.get_secret_value())
        self._connect_timeout = settings.database_connect_timeout
        self._timeout = timeout
        self._server_settings = {"application_name": "tradingbot", "TimeZone": "UTC"} | server_settings
        self._connection: Any = None

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """Runs a statement that does no harm when it runs twice, and gives its rows.

        Such a statement is sent again, once, if the connection turns out to have been closed since its last
        use, as all are when PostgreSQL restarts.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: it did not succeed;
                `core.database.is_unavailable` tells which of them may pass.
        """
        is_used = self._connection is not None
        try:
            return await self._fetch(statement, arguments)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if not is_used or isinstance(error, TimeoutError) or not is_broken(error):
                raise
        return await self._fetch(statement, arguments)

    def drop(self) -> None:
        """Ends the connection at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _fetch(self, statement: str, arguments: Sequence[Any]) -> Sequence[asyncpg.Record]:
        if self._connection is None:
            self._connection = await asyncpg.connect(
                self._url,
                timeout=self._connect_timeout,
                command_timeout=self._timeout,
                server_settings=self._server_settings,
            )
        is_whole = False
        try:
            rows: Sequence[asyncpg.Record] = await self._connection.fetch(statement, *arguments)
            is_whole = True
        except asyncpg.PostgresError as error:
            is_whole = not is_unavailable(error)
            raise
        finally:
            if not is_whole:
                self.drop()
        return rows


def is_broken(error: BaseException) -> bool:
    """Tells whether it is the connection that failed, rather than the server that cannot serve."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(("08", "57P"))
    return is_unavailable(error)
