"""The work loop: claims a row of the outbox, works on it, and ends the claim with what came of it."""

import asyncio

import structlog

from tradingbot.core.database import Database
from tradingbot.core.errors import UnavailableError
from tradingbot.core.logging import working_on
from tradingbot.core.settings import WorkerSettings
from tradingbot.orders.execution import Executor
from tradingbot.orders.outcome import Later, Steps
from tradingbot.outbox import repository as outbox
from tradingbot.worker.heartbeat import Heartbeat
from tradingbot.worker.pause import pause

log = structlog.stdlib.get_logger("tradingbot.worker")


class WorkLoop:
    """One of the worker's loops. `claims` has connections of its own, so that work never waits for claims."""

    def __init__(
        self,
        claims: Database,
        executor: Executor,
        heartbeat: Heartbeat,
        wake: asyncio.Event,
        settings: WorkerSettings,
        steps: Steps,
    ) -> None:
        self._claims = claims
        self._executor = executor
        self._heartbeat = heartbeat
        self._wake = wake
        self._settings = settings
        self._steps = steps

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping` is set, then ends after the row in hand."""
        failures = 0
        while not stopping.is_set():
            try:
                worked = await self.turn()
            except UnavailableError:
                failures += 1
                await self._rest(stopping, pause(failures, 0.1, 5.0))
                continue
            except Exception:
                log.exception("a turn of the work loop failed")
                failures += 1
                await self._rest(stopping, pause(failures, 0.5, 10.0))
                continue
            failures = 0
            self._heartbeat.beat()
            if not worked:
                await self._wait(stopping)

    async def turn(self) -> bool:
        """Works on one row, if there is one; tells whether there was."""
        async with self._claims.transaction() as session:
            row = await outbox.claim(session)
            if row is None:
                return False
            await self._steps("claimed")
            with working_on(strategy_id=row.strategy_id, signal_id=row.signal_id, order_id=row.order_id):
                outcome = await self._executor.work(row)
            if isinstance(outcome, Later):
                seconds = outcome.seconds
                if seconds is None:
                    longest = self._settings.worker_retry_longest
                    seconds = pause(row.attempts, self._settings.worker_retry_delay, longest)
                log.info("not now", row=row.id, task=row.task, reason=outcome.reason, seconds=seconds)
                # A short wait is not a failure: it makes no later pause longer, nor a message rarer.
                failed = outcome.seconds is None or outcome.stuck is not None
                await outbox.postpone(session, row.id, seconds, row.attempts + failed, outcome.reason)
            else:
                await outbox.finish(session, row.id)
            await self._steps("finishing")
        await self._steps("finished")
        return True

    async def _wait(self, stopping: asyncio.Event) -> None:
        """Until there may be work."""
        await _first([self._wake, stopping], self._settings.worker_poll_interval)
        self._wake.clear()

    async def _rest(self, stopping: asyncio.Event, seconds: float) -> None:
        """Until the time is over, whatever there is to do."""
        await _first([stopping], seconds)


async def _first(events: list[asyncio.Event], seconds: float) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
