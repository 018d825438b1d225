"""Sends in a thread, as Apprise blocks, and does not wait longer than it should."""

import asyncio
import contextlib
import threading

from tradingbot.notifications.targets import SENT, Message, Outcome, Target

_LATE = Outcome(sent=False, reason="no answer in time")
_BROKEN = Outcome(sent=False, reason="not accepted")


class Sender:
    """Sends to one target, one message at a time; has one thread at most, whatever the target does."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._message: Message | None = None
        self._outcome: asyncio.Future[Outcome] | None = None

    async def send(self, message: Message) -> Outcome:
        """Makes one attempt. One that is late goes on: it is waited for first the next time."""
        if self._outcome is not None:
            late = await self._wait()
            if late is _LATE or (late.sent and self._message is message):
                return late
        self._begin(message)
        return await self._wait()

    def _begin(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        outcome = self._outcome = loop.create_future()
        self._message = message

        def work() -> None:
            result = _BROKEN
            try:
                result = self._target.send(message)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop has ended without us
                    loop.call_soon_threadsafe(outcome.set_result, result)

        # Not of a pool: those are waited for when the process ends.
        threading.Thread(target=work, name="notification", daemon=True).start()

    async def _wait(self) -> Outcome:
        if self._outcome is None:
            return SENT
        try:
            outcome = await asyncio.wait_for(asyncio.shield(self._outcome), self._timeout)
        except TimeoutError:
            return _LATE
        self._outcome = None
        return outcome
