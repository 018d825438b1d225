"""Receives the events of all processes and keeps this worker's WebSocket clients up to date.

Redis brings events at once. What it loses is found by comparing numbers: a number that is not the next one
has the missing ones read from PostgreSQL, and so has, every EVENTS_POLL_INTERVAL, a last number in PostgreSQL
that is higher than ours. So without Redis events come late, and none is lost or doubled.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from tradingbot.core.database import Database
from tradingbot.core.errors import TooManyRequestsError, UnavailableError
from tradingbot.core.metrics import WEBSOCKETS
from tradingbot.core.settings import EventSettings
from tradingbot.core.tasks import stop
from tradingbot.events import repository, service
from tradingbot.events.connection import Connection
from tradingbot.events.feed import Feed
from tradingbot.events.schemas import CHANNEL, Event, Health, Holder

log = structlog.stdlib.get_logger("tradingbot.events")

_LONGEST_PAUSE = 5.0
# Seconds: an event that another process committed earlier may be on its way through Redis still.
_GAP_PATIENCE = 0.05
# Clients that read what they missed at the same time: they must leave connections for everybody else.
_READERS = 2
_WORKER_PATIENCE = timedelta(seconds=30)


class EventHub:
    """One Redis subscription and one poll a worker, whatever the number of clients."""

    def __init__(self, redis: Redis, database: Database, settings: EventSettings) -> None:
        self._redis = redis
        self._database = database
        self._settings = settings
        self._feeds: dict[UUID, Feed] = {}
        self._connections: dict[UUID, set[Connection]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._gap = asyncio.Event()
        self._readers = asyncio.Semaphore(_READERS)
        self._health = Health()
        self._polls_failed = 0
        self._next_poll = 0.0

    def start(self) -> None:
        """Starts receiving and polling."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="event-hub-redis"),
            asyncio.create_task(self._follow(), name="event-hub-postgresql"),
        ]

    async def close(self) -> None:
        """Stops both."""
        for task in self._tasks:
            await stop(task)

    @contextmanager
    def connect(self, holder: Holder) -> Iterator[Connection]:
        """Registers a client; `begin` comes next, then its `serve`.

        Events that happen meanwhile are noticed: nothing falls between the number that `begin` is told and
        what Redis brings.

        Raises:
            TooManyRequestsError: the user has WEBSOCKET_MAX_PER_USER connections to this worker.
        """
        connections = self._connections.setdefault(holder.user_id, set())
        if len(connections) >= self._settings.websocket_max_per_user:
            raise TooManyRequestsError("You have too many live connections.", retry_after=5)
        feed = self._feeds.setdefault(holder.user_id, Feed(self._settings.websocket_queue_size))
        connection = Connection(
            holder,
            feed,
            self._read,
            self._settings.websocket_send_timeout,
            self._settings.events_poll_interval,
        )
        connection.tell(self._health)
        connections.add(connection)
        feed.listeners.add(connection.changed)
        WEBSOCKETS.inc()
        try:
            yield connection
        finally:
            WEBSOCKETS.dec()
            feed.listeners.discard(connection.changed)
            connections.discard(connection)
            if not connections:
                del self._connections[holder.user_id], self._feeds[holder.user_id]

    def begin(self, user_id: UUID, last: int) -> None:
        """Learns the number of the user's last event, from which on the feed must be complete."""
        self._feeds[user_id].start(last)
        if self._feeds[user_id].is_behind:
            self._gap.set()

    async def _read(self, user_id: UUID, after: int) -> service.Batch:
        async with self._readers, self._database.transaction() as session:
            return await service.read_batch(session, user_id, after, self._settings.websocket_queue_size)

    async def _listen(self) -> None:
        pause = 0.1
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    pause = 0.1
                    await self._receive(pubsub)
            except (RedisError, OSError) as error:
                if self._health.redis == "ok":
                    log.warning("live events come late without Redis", reason=type(error).__name__)
            except Exception:  # a fault of ours with one message must not be the end of all
                log.exception("live events are not received")
            self._tell(redis="away")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _receive(self, pubsub: PubSub) -> None:
        is_silent = False
        while True:
            message = await pubsub.get_message(timeout=self._settings.events_poll_interval)
            if message is None:
                if is_silent:
                    raise TimeoutError
                is_silent = True
                await pubsub.ping()
                continue
            is_silent = False
            if message["type"] == "message":
                self._take(message["data"])
            elif message["type"] == "subscribe":
                self._tell(redis="ok")
                # What was published before is in PostgreSQL.
                self._next_poll = 0.0
                self._gap.set()

    def _take(self, data: str) -> None:
        try:
            event = Event.model_validate_json(data)
        except ValidationError:
            log.warning("an event on the channel is not one of ours")
            return
        feed = self._feeds.get(event.user_id)
        if feed is not None:
            feed.offer(event)
            if feed.is_behind:
                self._gap.set()

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gap.wait(), max(0.0, self._next_poll - time.monotonic()))
                await asyncio.sleep(_GAP_PATIENCE)
            self._gap.clear()
            try:
                if time.monotonic() >= self._next_poll:
                    self._next_poll = time.monotonic() + self._settings.events_poll_interval
                    self._end_idle()
                    await self._poll()
                await self._fill_gaps()
            except UnavailableError:
                self._polls_failed += 1
                # Once may be a busy pool.
                if self._polls_failed > 1:
                    self._tell(postgresql="away")
            except Exception:  # a fault of ours in one round must not be the end of all
                log.exception("live events are not followed")

    async def _poll(self) -> None:
        connections = [connection for group in self._connections.values() for connection in group]
        if not connections:
            # What nobody asks for is not known: the first who comes is not told of what was once.
            self._polls_failed = 0
            self._tell(postgresql="ok", worker="ok")
            return
        holders = list({connection.holder for connection in connections})
        async with self._database.transaction() as session:
            last = await repository.last_of_active(session, {holder.user_id for holder in holders})
            revoked = await service.revoked(session, holders, set(last))
            waits = await repository.outbox_waits(session, _WORKER_PATIENCE)
        self._polls_failed = 0
        self._tell(postgresql="ok", worker="behind" if waits else "ok")
        for user_id, number in last.items():
            if user_id in self._feeds and self._feeds[user_id].last is not None:
                self._feeds[user_id].start(number)
        for connection in connections:
            if connection.holder in revoked:
                connection.end(1008, "revoked", "revoked")

    async def _fill_gaps(self) -> None:
        limit = self._settings.websocket_queue_size
        while behind := {
            user_id: feed.last
            for user_id, feed in self._feeds.items()
            if feed.last is not None and feed.is_behind
        }:
            async with self._database.transaction() as session:
                found = await repository.list_of_many(session, behind, limit)
            for user_id, rows in found.items():
                if user_id in self._feeds:
                    self._feeds[user_id].load(service.from_row(row) for row in rows)
            if all(len(rows) < limit for rows in found.values()):
                return

    def _end_idle(self) -> None:
        oldest = time.monotonic() - self._settings.websocket_idle_timeout
        for group in self._connections.values():
            for connection in group:
                if connection.active_at < oldest:
                    connection.end(1000, "idle", "idle")

    def _tell(self, **changes: str) -> None:
        health = self._health.model_copy(update=changes)
        if health != self._health:
            self._health = health
            for group in self._connections.values():
                for connection in group:
                    connection.tell(health)
