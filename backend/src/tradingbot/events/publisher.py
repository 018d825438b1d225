"""Sends events to Redis from a task of its own: whoever has an event never waits for Redis."""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tradingbot.core.tasks import stop
from tradingbot.events.schemas import CHANNEL, Event

log = structlog.stdlib.get_logger("tradingbot.events")


class EventPublisher:
    """A bounded queue and the task that empties it. What cannot be sent is dropped: the database has it."""

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
            log.warning("event dropped", reason="queue full")

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
            event = await self._queue.get()
            try:
                await self._redis.publish(CHANNEL, event.model_dump_json())
                self._failing = False
            except (RedisError, OSError) as error:
                if not self._failing:
                    log.warning("events are not published", reason=type(error).__name__)
                self._failing = True
            finally:
                self._queue.task_done()
