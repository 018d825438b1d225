"""Does what we depend on answer? All checks at once, each bounded in time."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tradingbot.core.database import Database
from tradingbot.core.errors import UnavailableError
from tradingbot.core.redis import ping
from tradingbot.core.tasks import within
from tradingbot.migrations.state import read_state

CHECK_TIMEOUT = 2.0
OK = "ok"
# What we can do without, for a while.
OPTIONAL = frozenset({"redis"})


async def readiness(database: Database, redis: Redis) -> dict[str, str]:
    """Gives for each part `ok`, or what is wrong with it."""
    postgresql, schema, redis_state = await asyncio.gather(
        _bounded(_postgresql(database)),
        _bounded(_schema(database)),
        _bounded(_redis(redis)),
    )
    return {"postgresql": postgresql, "redis": redis_state, "schema": schema}


async def _bounded(check: Coroutine[Any, Any, str]) -> str:
    try:
        return await within(CHECK_TIMEOUT, check)
    except (UnavailableError, TimeoutError, RedisError, OSError, DBAPIError):
        return "does not answer"


async def _postgresql(database: Database) -> str:
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))
    return OK


async def _schema(database: Database) -> str:
    async with database.transaction() as session:

        async def fetch_row(query: str) -> Sequence[Any] | None:
            return (await session.execute(text(query))).first()

        state = await read_state(fetch_row)
    return state.problem or OK


async def _redis(redis: Redis) -> str:
    await ping(redis)
    return OK
