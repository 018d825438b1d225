"""What the worker does now and then, beside its work."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tradingbot.core import metrics
from tradingbot.core.database import Database
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import EventSettings
from tradingbot.events import service as events
from tradingbot.outbox import repository as outbox
from tradingbot.worker.pause import pause

log = structlog.stdlib.get_logger("tradingbot.worker")


async def repeat(name: str, seconds: float, job: Callable[[], Awaitable[None]]) -> None:
    """Does `job` about every so many seconds, until cancelled; its failures are logged and passed over."""
    while True:
        await asyncio.sleep(pause(0, seconds * 4 / 3, seconds * 4 / 3))
        try:
            await job()
        except UnavailableError:
            log.info("put off, PostgreSQL is away", job=name)
        except Exception:
            log.exception("a job failed", job=name)


async def measure(database: Database) -> None:
    """Makes the length and age of the queue metrics."""
    async with database.transaction() as session:
        waiting = await outbox.backlog(session)
    metrics.set_outbox(waiting.rows, waiting.oldest)


async def tidy(database: Database, settings: EventSettings) -> None:
    """Deletes events that are older than EVENTS_RETENTION_DAYS."""
    deleted = await events.forget_old(database, settings.events_retention_days)
    if deleted:
        log.info("old events deleted", events=deleted)
