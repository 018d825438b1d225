"""Receives the events of all workers from Redis and hands them to this worker's WebSocket clients."""

import asyncio
import contextlib
from collections import defaultdict
from uuid import UUID

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from tradingbot.core.tasks import stop
from tradingbot.events.schemas import CHANNEL, Event

log = structlog.stdlib.get_logger("tradingbot.events")

_LONGEST_PAUSE = 5.0


class Subscription:
    """One client's queue. `overflowed` is set when it did not keep up."""

    def __init__(self, user_id: UUID, size: int) -> None:
        self.user_id = user_id
        self.queue: asyncio.Queue[str] = asyncio.Queue(size)
        self.overflowed = asyncio.Event()

    def offer(self, message: str) -> None:
        """Queues the message, or marks the client as too slow."""
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.overflowed.set()


class EventHub:
    """Keeps one Redis subscription a worker, whatever the number of clients."""

    def __init__(self, redis: Redis, queue_size: int) -> None:
        self._redis = redis
        self._queue_size = queue_size
        self._clients: defaultdict[UUID, set[Subscription]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    def start(self) -> None:
        """Starts receiving."""
        self._task = asyncio.create_task(self._run(), name="event-hub")

    async def close(self) -> None:
        """Stops receiving."""
        if self._task is not None:
            await stop(self._task)

    def subscribe(self, user_id: UUID) -> Subscription:
        """Starts to queue the user's events for one client."""
        subscription = Subscription(user_id, self._queue_size)
        self._clients[user_id].add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Ends what `subscribe` began."""
        clients = self._clients[subscription.user_id]
        clients.discard(subscription)
        if not clients:
            del self._clients[subscription.user_id]

    async def wait_connected(self) -> None:
        """Waits until events arrive from Redis, but not long: without Redis a client gets them later."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), _LONGEST_PAUSE)

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    self._connected.set()
                    pause = 0.1
                    await self._receive(pubsub)
            except (RedisError, OSError) as error:
                if self._connected.is_set():
                    log.warning("live events are interrupted", reason=type(error).__name__)
                self._connected.clear()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _receive(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is None:
                await pubsub.ping()
                continue
            if message["type"] == "message":
                self._deliver(message["data"])

    def _deliver(self, data: str) -> None:
        try:
            event = Event.model_validate_json(data)
        except ValidationError:
            log.warning("an event on the channel is not one of ours")
            return
        clients = self._clients.get(event.user_id)
        if clients:
            message = event.for_client()
            for client in clients:
                client.offer(message)
