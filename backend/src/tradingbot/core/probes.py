"""Connects to PostgreSQL and Redis and says in plain words what came of it. Never shows a password."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from time import monotonic

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from tradingbot.core.address import Address, plain_dsn
from tradingbot.core.redis import PREFIX, make_redis, ping
from tradingbot.core.settings import DatabaseSettings, RedisSettings

_PAUSE = 0.5


class ProbeError(Exception):
    """What did not answer, and how. `transient` ones may pass with time."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


async def wait_for(probe: Callable[[], Awaitable[str]], seconds: float) -> str:
    """Repeats `probe` until it succeeds; gives up after `seconds`, or at once on what waiting cannot mend.

    Raises:
        ProbeError: the last reason.
    """
    deadline = monotonic() + seconds
    while True:
        try:
            return await probe()
        except ProbeError as error:
            if not error.transient:
                raise
            if monotonic() + _PAUSE > deadline:
                raise ProbeError(f"{error} (waited {seconds:g} s)", transient=True) from None
        await asyncio.sleep(_PAUSE)


async def probe_postgresql(settings: DatabaseSettings) -> str:
    """Connects, asks for the version and whether we may write.

    Raises:
        ProbeError: naming the server, and the user or database where that is the reason.
    """
    address = Address(settings.database_url.get_secret_value(), 5432)
    where = f"PostgreSQL at {address}"
    try:
        connection = await asyncpg.connect(
            plain_dsn(settings.database_url.get_secret_value()),
            timeout=settings.database_connect_timeout,
            command_timeout=settings.database_command_timeout,
        )
    except asyncpg.InvalidAuthorizationSpecificationError:
        raise ProbeError(
            f"{where} refuses user {address.user}: wrong password or user", transient=False
        ) from None
    except asyncpg.InvalidCatalogNameError:
        raise ProbeError(f"{where} has no database {address.database}", transient=False) from None
    except asyncpg.PostgresError as error:
        state = str(error.sqlstate)
        raise ProbeError(
            f"{where} refuses the connection: {error}", transient=state.startswith(("53", "57"))
        ) from None
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise ProbeError(f"{where} does not answer: {_reason(error)}", transient=True) from None
    try:
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise ProbeError(f"{where} is read-only (a standby, or still recovering)", transient=True)
        version = await connection.fetchval("SELECT current_setting('server_version')")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ProbeError(f"{where} does not answer a query: {_reason(error)}", transient=True) from None
    finally:
        connection.terminate()
    return f"PostgreSQL {str(version).split()[0]} at {address}"


async def probe_redis(settings: RedisSettings) -> str:
    """Connects, pings, and publishes to a channel that nobody reads.

    Raises:
        ProbeError: naming the server, and the user where that is the reason.
    """
    address = Address(settings.redis_url.get_secret_value(), 6379)
    where = f"Redis at {address}"
    user = address.user or "default"
    client: Redis = make_redis(settings)
    try:
        await ping(client)
        await client.publish(f"{PREFIX}probe", "")
    except AuthenticationError:
        raise ProbeError(f"{where} refuses user {user}: wrong password or user", transient=False) from None
    except NoPermissionError:
        raise ProbeError(
            f"{where} does not let user {user} use PING and PUBLISH {PREFIX}*", transient=False
        ) from None
    except ResponseError as error:
        raise ProbeError(f"{where} refuses: {error}", transient="LOADING" in str(error)) from None
    except (RedisError, OSError, TimeoutError) as error:
        raise ProbeError(f"{where} does not answer: {_reason(error)}", transient=True) from None
    finally:
        await client.aclose()
    return where


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name does not resolve"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, TimeoutError):
            return "time-out"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
