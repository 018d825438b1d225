"""Redis: carries live events between workers. Losing it loses nothing that matters."""

from collections.abc import Awaitable
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tradingbot.core.settings import RedisSettings

# Every key and channel of ours begins so: access lists can be limited to it.
PREFIX = "tradingbot:"


def make_redis(settings: RedisSettings) -> Redis:
    """Makes a client whose every step is bounded in time and that does not retry by itself."""
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        socket_connect_timeout=settings.redis_timeout,
        socket_timeout=settings.redis_timeout,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
        client_name="tradingbot",
    )


async def ping(redis: Redis) -> None:
    """Asks Redis for a sign of life."""
    await cast("Awaitable[bool]", redis.ping())
