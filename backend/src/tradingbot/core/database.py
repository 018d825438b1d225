"""PostgreSQL: the engine, transactions, and what it means when it does not answer."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import sqlalchemy.exc
import structlog
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from tradingbot.core import strict_json
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import DatabaseSettings
from tradingbot.core.slow_queries import SlowQueries

log = structlog.stdlib.get_logger("tradingbot.database")

# Key of `session.info` under which the events of a transaction wait for its commit.
RECORDED_EVENTS = "recorded_events"

# Key of a pooled connection's `info`: when it was last used (monotonic seconds).
_USED_AT = "used_at"
_TRUSTED_SECONDS = 1.0

_CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    sqlalchemy.exc.TimeoutError,
)
# SQLSTATE classes and codes that say nothing about our statement but that the server cannot serve us now:
# connection, authorization, unknown database, resources, operator intervention, read-only, no schema yet,
# and collisions with others (deadlock, serialization), of which one party has to try again.
_UNAVAILABLE_STATES = ("08", "28", "3D", "40", "53", "57", "58", "25006", "42P01", "42501")


def database_url(settings: DatabaseSettings) -> URL:
    """Gives DATABASE_URL for SQLAlchemy's asyncpg dialect."""
    return make_url(settings.database_url.get_secret_value()).set(drivername="postgresql+asyncpg")


def make_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Makes the pool of connections; connects when first used."""
    engine = create_async_engine(
        database_url(settings),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout,
        hide_parameters=True,
        json_serializer=strict_json.dumps,
        connect_args={
            "timeout": settings.database_connect_timeout,
            "command_timeout": settings.database_command_timeout,
            "server_settings": {"application_name": "tradingbot", "TimeZone": "UTC"},
        },
    )
    _check_before_use(engine.sync_engine)
    SlowQueries(settings.slow_query_ms).watch(engine)
    return engine


def _check_before_use(engine: Engine) -> None:
    """Has the pool replace a connection that has ended, as all do when PostgreSQL restarts.

    Asking the server before each use (`pool_pre_ping`) costs a quarter of all ways to it and back. asyncpg
    sees the end of a connection without that; only one that was not used for a while is asked all the same.
    """

    def check(connection: Any, record: Any, _proxy: object) -> None:
        if connection.driver_connection.is_closed():
            raise sqlalchemy.exc.DisconnectionError
        if time.monotonic() - record.info.get(_USED_AT, 0.0) > _TRUSTED_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise sqlalchemy.exc.DisconnectionError from error

    def note_use(_connection: object, record: Any) -> None:
        record.info[_USED_AT] = time.monotonic()

    event.listen(engine, "checkout", check)
    event.listen(engine, "checkin", note_use)
    # One that has just been opened.
    event.listen(engine, "connect", note_use)


class Database:
    """Transactions on one pool.

    What `tradingbot.events.service.record` stored in a transaction is given to `publish` after its commit.
    """

    def __init__(
        self, settings: DatabaseSettings, publish: Callable[[Sequence[Any]], None] | None = None
    ) -> None:
        self.engine = make_engine(settings)
        self._pool_size = settings.database_pool_size
        self._publish = publish
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)
        self._single = async_sessionmaker(
            self.engine.execution_options(isolation_level="AUTOCOMMIT"), autoflush=False
        )

    async def open(self) -> None:
        """Opens the connections that the pool keeps, for the first requests not to wait for them.

        After a deploy all clients come at once, to processes that have just started. Without PostgreSQL it
        does nothing: connections are opened when they are used.
        """
        with suppress(UnavailableError), _unavailable_told():
            async with AsyncExitStack() as opened:
                for _ in range(self._pool_size):
                    await opened.enter_async_context(self.engine.connect())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Commits at the end, rolls back on an error.

        Raises:
            UnavailableError: PostgreSQL does not answer, has no free connection for us, or cannot write.
        """
        with _unavailable_told():
            async with self._sessions.begin() as session:
                yield session
            recorded = session.info.pop(RECORDED_EVENTS, None)
            if recorded and self._publish is not None:
                self._publish(recorded)

    @asynccontextmanager
    async def single(self) -> AsyncIterator[AsyncSession]:
        """For a single statement that is its own transaction: saves two ways to the server and back.

        Raises:
            UnavailableError: as `transaction`.
        """
        with _unavailable_told():
            async with self._single() as session:
                yield session

    async def close(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()


@contextmanager
def _unavailable_told() -> Iterator[None]:
    try:
        yield
    except (*_CONNECTION_ERRORS, sqlalchemy.exc.DBAPIError) as error:
        if not is_unavailable(error):
            raise
        log.warning("PostgreSQL is not available", reason=type(error).__name__)
        raise UnavailableError("The database does not answer.") from None


def is_unavailable(error: BaseException) -> bool:
    """Tells whether PostgreSQL cannot serve us now, rather than that we asked wrongly."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        if error.connection_invalidated:
            return True
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            return isinstance(error, sqlalchemy.exc.InterfaceError | sqlalchemy.exc.OperationalError)
        return str(state).startswith(_UNAVAILABLE_STATES)
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(_UNAVAILABLE_STATES)
    return isinstance(error, _CONNECTION_ERRORS)
