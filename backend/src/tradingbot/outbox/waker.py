"""Tells workers that there is something in the outbox."""

import asyncio

import asyncpg
import structlog

from tradingbot.core.direct import DirectConnection
from tradingbot.core.settings import DatabaseSettings
from tradingbot.core.tasks import stop
from tradingbot.outbox.repository import CHANNEL

log = structlog.stdlib.get_logger("tradingbot.outbox")

# A NOTIFY within a transaction makes commits wait for each other (PostgreSQL takes a lock on the queue of
# notifications); sent afterwards and at most so often, it costs intake nothing.
_INTERVAL = 0.02
_TIMEOUT = 2.0


class Waker:
    """Sends `NOTIFY` from a task of its own. What gets lost here workers find when they poll."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._connection = DirectConnection(settings, _TIMEOUT)
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Starts sending."""
        self._task = asyncio.create_task(self._run(), name="outbox-waker")

    def wake(self) -> None:
        """Asks for a `NOTIFY` soon, and returns at once. Call it after the commit."""
        self._wanted.set()

    async def close(self) -> None:
        """Stops."""
        if self._task is not None:
            await stop(self._task)
        self._connection.drop()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._connection.fetch(f"NOTIFY {CHANNEL}")
                self._failing = False
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if not self._failing:
                    log.warning("workers are not woken, they poll", reason=type(error).__name__)
                self._failing = True
            await asyncio.sleep(_INTERVAL)
