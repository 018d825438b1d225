"""Sends events to Redis from a task of its own: whoever has an event never waits for Redis."""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tradingbot.core.metrics import EVENT_PUBLISH_FAILURES
from tradingbot.core.tasks import stop
from tradingbot.events.schemas import CHANNEL, Event

log = structlog.stdlib.get_logger("tradingbot.events")

_AT_ONCE = 100


class EventPublisher:
    """A bounded queue and the task that empties it, in the order of the calls.

    What cannot be sent is dropped: PostgreSQL has it, and clients get it from there. For any process that
    changes what users see: `Database(settings, publisher.publish_all)`.
    """

    def __init__(self, redis: Redis, queue_size: int = 1000) -> None:
        self._redis = redis
        self._queue: asyncio.Queue[Event] = asyncio.Queue(queue_size)
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Starts sending."""
        self._task = asyncio.create_task(self._run(), name="event-publisher")

    def publish(self, event: Event) -> None:
        """Puts the event into the queue and returns at once."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._failed("queue_full", 1, "the queue is full")

    def publish_all(self, events: Sequence[Event]) -> None:
        """Puts the events of a transaction into the queue."""
        for event in events:
            self.publish(event)

    async def close(self) -> None:
        """Sends what is queued, for a second at most, then stops."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._queue.join(), 1)
        await stop(self._task)

    async def _run(self) -> None:
        while True:
            events = [await self._queue.get()]
            while len(events) < _AT_ONCE and not self._queue.empty():
                events.append(self._queue.get_nowait())
            try:
                await self._send(events)
                self._failing = False
            except (RedisError, OSError) as error:
                self._failed("redis", len(events), type(error).__name__)
            except Exception:  # a fault of ours with some events must not be the end of all
                log.exception("events are not published")
                EVENT_PUBLISH_FAILURES.labels("error").inc(len(events))
            finally:
                for _ in events:
                    self._queue.task_done()

    async def _send(self, events: list[Event]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for event in events:
                pipeline.publish(CHANNEL, event.model_dump_json())
            await pipeline.execute()

    def _failed(self, metric: str, count: int, reason: str) -> None:
        EVENT_PUBLISH_FAILURES.labels(metric).inc(count)
        if not self._failing:
            log.warning("events are not published; clients get them from PostgreSQL", reason=reason)
        self._failing = True
