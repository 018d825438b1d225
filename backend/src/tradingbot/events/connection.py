"""One client of the WebSocket: brings it up to date, keeps it so, and ends it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from tradingbot.core import strict_json
from tradingbot.core.errors import UnavailableError
from tradingbot.core.metrics import WEBSOCKETS_DROPPED
from tradingbot.core.models import utc_now
from tradingbot.events.feed import Feed
from tradingbot.events.schemas import Health, Holder
from tradingbot.events.service import Batch

log = structlog.stdlib.get_logger("tradingbot.events")

_CLOSE_SECONDS = 1.0


class Connection:
    """Sends what the feed has after `cursor`, or PostgreSQL if the feed has it no more.

    `read` gives events after a number. `send_timeout` and `retry_pause` are in seconds.
    """

    def __init__(
        self,
        holder: Holder,
        feed: Feed,
        read: Callable[[UUID, int], Awaitable[Batch]],
        send_timeout: float,
        retry_pause: float,
    ) -> None:
        self.holder = holder
        self.active_at = time.monotonic()
        self.changed = asyncio.Event()
        self._feed = feed
        self._read = read
        self._send_timeout = send_timeout
        self._retry_pause = retry_pause
        self._cursor = 0
        self._health = self._told = Health()
        self._end: tuple[int, str] | None = None
        self._ending = asyncio.Event()

    def tell(self, health: Health) -> None:
        """Has the client told of this state, unless it knows it."""
        self._health = health
        self.changed.set()

    def end(self, code: int, reason: str, metric: str) -> None:
        """Closes the connection as soon as possible."""
        if self._end is None:
            self._end = code, reason
            self._ending.set()
            WEBSOCKETS_DROPPED.labels(metric).inc()

    async def serve(self, websocket: WebSocket, after: int, last: int) -> None:
        """Works until the client has gone or `end` is called; `last` is the user's last event."""
        self._cursor = after
        tasks = [
            asyncio.create_task(self._send_events(websocket, last)),
            asyncio.create_task(self._receive(websocket)),
            asyncio.create_task(self._ending.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        if self._end is not None:
            code, reason = self._end
            # Here and not where it was decided: this line has the connection's request id.
            log.info("a live connection is ended", reason=reason, code=code, user_id=str(self.holder.user_id))
            with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
                await asyncio.wait_for(websocket.close(code, reason), _CLOSE_SECONDS)
            return
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                WEBSOCKETS_DROPPED.labels("error").inc()
                raise result

    async def _send_events(self, websocket: WebSocket, last: int) -> None:
        self._told = self._health
        await self._send(websocket, _notice("ready", self._told, sequence=self._cursor))
        if self._cursor > last:
            await self._reset(websocket, last)
        while True:
            self.changed.clear()
            if self._told != self._health:
                self._told = self._health
                await self._send(websocket, _notice("health", self._told))
            messages = self._feed.after(self._cursor)
            if messages is None:
                messages = await self._read_missed(websocket)
            elif not messages:
                await self.changed.wait()
            for sequence, message in messages:
                await self._send(websocket, message)
                self._cursor = sequence

    async def _read_missed(self, websocket: WebSocket) -> list[tuple[int, str]]:
        try:
            batch = await self._read(self.holder.user_id, self._cursor)
        except UnavailableError:
            await asyncio.sleep(self._retry_pause)
            return []
        if batch.lost:
            await self._reset(websocket, batch.last)
        return [(event.sequence, event.for_client()) for event in batch.events]

    async def _reset(self, websocket: WebSocket, last: int) -> None:
        self._cursor = last
        await self._send(websocket, _notice("reset", sequence=last))

    async def _send(self, websocket: WebSocket, message: str) -> None:
        try:
            async with asyncio.timeout(self._send_timeout):
                await websocket.send_text(message)
        except TimeoutError:
            self.end(1013, "too slow", "slow")
            await asyncio.Event().wait()  # until cancelled
        self.active_at = time.monotonic()

    async def _receive(self, websocket: WebSocket) -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            self.active_at = time.monotonic()


def _notice(kind: str, health: Health | None = None, **members: Any) -> str:
    data = {} if health is None else health.model_dump()
    at = utc_now().isoformat().replace("+00:00", "Z")
    return strict_json.dumps(members | {"type": kind, "data": data, "at": at})
