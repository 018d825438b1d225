"""Stores alerts, many with one commit.

What arrives while a commit is on its way is stored together by the next one, so the rate is not bound to the
number of connections and to how long PostgreSQL takes to write to its disk. An alert that comes alone is
stored at once.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import asyncpg
import structlog

from tradingbot.core.database import is_unavailable
from tradingbot.core.direct import DirectConnection
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.core.tasks import stop
from tradingbot.outbox.waker import Waker
from tradingbot.webhooks import repository
from tradingbot.webhooks.repository import NewAlert, Verdict

log = structlog.stdlib.get_logger("tradingbot.webhooks")

# Alerts in one statement, and how many may wait before further ones are turned away.
_LARGEST_BATCH = 50
_LONGEST_QUEUE = 1000
# How often an alert is given to the statement. Twice is not rare; each further time, another one was quicker.
_ATTEMPTS = 5


class _Waiting(NamedTuple):
    alert: NewAlert
    verdict: "asyncio.Future[Verdict | None]"


class Intake:
    """A queue of alerts, and tasks with a connection each that empty it."""

    def __init__(self, settings: Settings, waker: Waker) -> None:
        self._settings = settings
        self._window = timedelta(seconds=settings.webhook_dedup_window)
        self._waker = waker
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(_LONGEST_QUEUE)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the connections and start storing. Without PostgreSQL they are opened for the first alert."""
        timeout = self._settings.webhook_timeout
        limit = {"statement_timeout": str(int(timeout * 1000))}
        for _ in range(self._settings.webhook_connections):
            connection = DirectConnection(self._settings, timeout, **repository.SERVER_SETTINGS, **limit)
            try:
                await repository.prepare(connection)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("PostgreSQL is not available", reason=type(error).__name__)
            self._tasks.append(asyncio.create_task(self._run(connection), name="intake"))

    async def close(self) -> None:
        """Stops. What still waits is answered 503."""
        for task in self._tasks:
            await stop(task)
        while not self._queue.empty():
            _fail([self._queue.get_nowait()], _unavailable())

    async def store(self, alert: NewAlert) -> Verdict | None:
        """Stores the alert if it is new, trusted and fresh; None: no active strategy has the token.

        Raises:
            UnavailableError: PostgreSQL is away or slow. The alert may have been stored all the same.
        """
        waiting = _Waiting(alert, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
            async with asyncio.timeout(self._settings.webhook_timeout):
                return await waiting.verdict
        except asyncio.QueueFull:
            raise UnavailableError("Too many alerts are waiting.", retry_after=1) from None
        except TimeoutError:
            raise UnavailableError("The database took too long.") from None

    async def _run(self, connection: DirectConnection) -> None:
        batch: list[_Waiting] = []
        try:
            while True:
                batch = [await self._queue.get()]
                # What has come with it gets into the queue, and so into the batch.
                await asyncio.sleep(0)
                while len(batch) < _LARGEST_BATCH and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                # Whose time is over has been answered.
                await self._store([waiting for waiting in batch if not waiting.verdict.done()], connection)
        finally:
            _fail(batch, _unavailable())
            connection.drop()

    async def _store(self, batch: Sequence[_Waiting], connection: DirectConnection) -> None:
        try:
            for _ in range(_ATTEMPTS):
                if not batch:
                    return
                batch = await self._store_once(batch, connection)
            _fail(batch, _unavailable())
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if is_unavailable(error) and not isinstance(error, ValueError):
                log.warning("PostgreSQL is not available", reason=type(error).__name__)
                _fail(batch, _unavailable())
            elif len(batch) > 1:
                for waiting in batch:
                    await self._store([waiting], connection)
            else:
                _fail(batch, error)
        except Exception as error:
            log.exception("an alert was not stored")
            _fail(batch, error)

    async def _store_once(
        self, batch: Sequence[_Waiting], connection: DirectConnection
    ) -> Sequence[_Waiting]:
        """Gives those whose verdict is not final."""
        alerts = [waiting.alert for waiting in batch]
        try:
            verdicts = await repository.store(
                connection, alerts, self._window, self._settings.webhook_max_age
            )
        except asyncpg.ForeignKeyViolationError:
            # A strategy was deleted in between: the next time it is not found.
            return batch
        if any(verdict is not None and verdict.new_id for verdict in verdicts):
            self._waker.wake()
        again = []
        for waiting, verdict in zip(batch, verdicts, strict=True):
            if verdict is not None and not verdict.is_final:
                again.append(waiting)
            elif not waiting.verdict.done():
                waiting.verdict.set_result(verdict)
        return again


def _unavailable() -> UnavailableError:
    return UnavailableError("The database does not answer.")


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.verdict.done():
            waiting.verdict.set_exception(error)
