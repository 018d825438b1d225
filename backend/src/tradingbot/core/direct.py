"""Connections to PostgreSQL without SQLAlchemy in between, for the few statements that have to be fast."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from tradingbot.core.address import plain_dsn
from tradingbot.core.database import is_unavailable
from tradingbot.core.settings import DatabaseSettings
from tradingbot.core.slow_queries import SlowQueries

# SQLSTATEs of a connection that has ended, or is about to: connection exception, and shutdown of the server.
_BROKEN_STATES = ("08", "57P01", "57P02", "57P03")


class DirectConnection:
    """One connection: opened when first used, given up when it breaks or is silent, and then opened again.

    It is for one task at a time. Each statement is a transaction of its own, committed when we have its rows.
    """

    def __init__(self, settings: DatabaseSettings, timeout: float, **server_settings: str) -> None:
        self._url = plain_dsn(settings.database_url.get_secret_value())
        self._connect_timeout = settings.database_connect_timeout
        self._timeout = timeout
        self._server_settings = {"application_name": "tradingbot", "TimeZone": "UTC"} | server_settings
        self._slow_queries = SlowQueries(settings.slow_query_ms)
        self._connection: Any = None

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """Runs a statement that does no harm when it runs twice, and gives its rows.

        It is sent again, once and on a new connection, if the connection breaks while we wait: as all do when
        PostgreSQL restarts.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: it did not succeed;
                `core.database.is_unavailable` tells which of them may pass.
        """
        try:
            return await self._fetch(await self._connected(), statement, arguments)
        except _BrokenError:
            return await self._fetch(await self._connected(), statement, arguments)

    def drop(self) -> None:
        """Ends the connection at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=self._connect_timeout,
                command_timeout=self._timeout,
                server_settings=self._server_settings,
            )
        return self._connection

    async def _fetch(
        self, connection: Any, statement: str, arguments: Sequence[Any]
    ) -> Sequence[asyncpg.Record]:
        is_whole = False
        try:
            with self._slow_queries.measured(statement):
                rows: Sequence[asyncpg.Record] = await connection.fetch(statement, *arguments)
            is_whole = True
        except asyncpg.PostgresError as error:
            if str(error.sqlstate).startswith(_BROKEN_STATES):
                raise _BrokenError from error
            is_whole = not is_unavailable(error)
            raise
        except asyncpg.InternalClientError as error:
            # The connection's end has come between two messages.
            raise _BrokenError from error
        except TimeoutError:
            raise
        except OSError as error:
            raise _BrokenError from error
        finally:
            if not is_whole:
                self.drop()
        return rows


class _BrokenError(ConnectionError):
    """The connection has ended while we waited."""
