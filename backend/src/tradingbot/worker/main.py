"""The worker: everything that runs in it, from start to stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog

from tradingbot.core.crypto import Envelopes
from tradingbot.core.database import Database
from tradingbot.core.metrics import watch_pool
from tradingbot.core.redis import make_redis
from tradingbot.core.settings import Settings
from tradingbot.core.tasks import stop
from tradingbot.events.publisher import EventPublisher
from tradingbot.exchanges.base import Exchange
from tradingbot.exchanges.factory import open_exchange
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.inference.registry import ModelRegistry
from tradingbot.notifications.service import make_notifier
from tradingbot.orders.changes import Changing
from tradingbot.orders.exchange_pool import ExchangePool, Opener
from tradingbot.orders.execution import Executor, Tools
from tradingbot.orders.outcome import Steps, no_steps
from tradingbot.orders.reconcile import Reconciler
from tradingbot.positions.flattening import flatten
from tradingbot.worker.heartbeat import Heartbeat
from tradingbot.worker.listener import Listener
from tradingbot.worker.loop import WorkLoop
from tradingbot.worker.periodic import measure, repeat, tidy

log = structlog.stdlib.get_logger("tradingbot.worker")

_FLATTEN_INTERVAL = 1.0
_MEASURE_INTERVAL = 5.0
_TIDY_INTERVAL = 3600.0
# Of the exchange's own limit (EXCHANGE_TIMEOUT) it should never come to this one.
_GRACE = 1.0

MakeOpener = Callable[[Settings, Database], Opener]


async def run(settings: Settings, make_opener: MakeOpener, steps: Steps = no_steps) -> int:
    """Works until SIGTERM or SIGINT; gives the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with worker(settings, make_opener, steps) as (loops, jobs):
        await supervise(loops, jobs, stopping, settings.worker_shutdown_timeout)
    log.info("the worker has stopped")
    return 0


@asynccontextmanager
async def worker(
    settings: Settings, make_opener: MakeOpener, steps: Steps
) -> AsyncIterator[tuple[list[WorkLoop], list[Coroutine[Any, Any, None]]]]:
    """Puts the worker together: its work loops, and what runs beside them."""
    async with AsyncExitStack() as stack:
        redis = make_redis(settings)
        stack.push_async_callback(redis.aclose)
        publisher = EventPublisher(redis)
        publisher.start()
        stack.push_async_callback(publisher.close)
        notifier = make_notifier(settings)
        notifier.start()
        stack.push_async_callback(notifier.close)
        database = Database(_pool_of(settings, settings.worker_concurrency + 4), publisher.publish_all)
        stack.push_async_callback(database.close)
        # A claim lasts as long as the work on it: it has a pool of its own, or work could wait for claims.
        claims = Database(_pool_of(settings, settings.worker_concurrency + 1))
        stack.push_async_callback(claims.close)
        watch_pool(database.engine, "work")
        watch_pool(claims.engine, "claims")
        exchanges = ExchangePool(make_opener(settings, database), settings.exchange_timeout + _GRACE)
        stack.push_async_callback(exchanges.close)
        changing = Changing(database, notifier)
        registry = ModelRegistry(settings.models_dir)
        executor = Executor(Tools(changing, exchanges, registry, settings, steps))
        heartbeat, wake = Heartbeat(settings.worker_health_file), asyncio.Event()
        stack.callback(heartbeat.end)
        reconciler = Reconciler(changing, Changing(claims, notifier), exchanges, executor.placer, settings)
        loops = [
            WorkLoop(claims, executor, heartbeat, wake, settings, steps)
            for _ in range(settings.worker_concurrency)
        ]
        jobs = [
            Listener(settings, wake).run(),
            repeat("reconcile", settings.reconcile_interval, reconciler.round),
            repeat("flatten", _FLATTEN_INTERVAL, partial(flatten, database)),
            repeat("measure", _MEASURE_INTERVAL, partial(measure, database)),
            repeat("tidy", _TIDY_INTERVAL, partial(tidy, database, settings)),
        ]
        yield loops, jobs


async def supervise(
    loops: list[WorkLoop],
    jobs: list[Coroutine[Any, Any, None]],
    stopping: asyncio.Event,
    patience: float,
) -> None:
    """Runs everything until `stopping`; then waits for the rows in hand, but not for ever.

    Raises:
        Exception: whatever ended a job that should never end.
    """
    working = [asyncio.create_task(loop.run(stopping)) for loop in loops]
    beside = [asyncio.create_task(job) for job in jobs]
    stopped = asyncio.create_task(stopping.wait())
    log.info("the worker works", loops=len(loops))
    try:
        ended, _others = await asyncio.wait([stopped, *beside], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.set()
        log.info("the worker stops")
        for task in [stopped, *beside]:
            await stop(task)
        _done, late = await asyncio.wait(working, timeout=patience)
        for task in late:
            # The claim's transaction ends with the task: another worker goes on from what is stored.
            log.warning("a row is released before its work is done")
            await stop(task)
    for task in ended - {stopped}:
        task.result()


def _pool_of(settings: Settings, size: int) -> Settings:
    # Overflow for the moment in which a broken connection still counts.
    return settings.model_copy(update={"database_pool_size": size, "database_max_overflow": 2})


def opener(settings: Settings, database: Database) -> Opener:
    """Opens the exchange of an account: paper, or one of ccxt's."""
    envelopes = Envelopes.of(settings)

    def open_(account: ExchangeAccount) -> Exchange:
        return open_exchange(account, settings, envelopes, database)

    return open_
