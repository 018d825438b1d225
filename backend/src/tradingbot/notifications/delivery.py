"""Gets messages to one target: one after the other, again and again, but not for ever."""

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass

import structlog

from tradingbot.core.metrics import NOTIFICATIONS
from tradingbot.core.tasks import stop
from tradingbot.notifications.sending import Sender
from tradingbot.notifications.targets import Message, Target

log = structlog.stdlib.get_logger("tradingbot.notifications")

_random = random.SystemRandom()


@dataclass(frozen=True)
class Patience:
    """How long we try. Times are in seconds.

    A message is sent up to `attempts` times, with pauses that double from `first_pause` to `longest_pause`,
    each shortened at random by up to a half, so that ours do not keep step with those of others. With the
    values here that goes on for four to eight minutes.
    """

    attempts: int = 12
    first_pause: float = 1.0
    longest_pause: float = 60.0
    timeout: float = 15.0
    queue: int = 100
    # For what waits when we are stopped.
    closing: float = 5.0


class Delivery:
    """A bounded queue and the task that empties it. If it is full, the oldest message is dropped."""

    def __init__(self, target: Target, patience: Patience) -> None:
        self._name = target.name
        self._sender = Sender(target, patience.timeout)
        self._patience = patience
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts sending."""
        self._task = asyncio.create_task(self._run(), name="notifications")

    def put(self, message: Message) -> None:
        """Takes a message and returns at once."""
        if len(self._waiting) >= self._patience.queue:
            dropped = self._waiting.popleft()
            NOTIFICATIONS.labels("dropped").inc()
            log.warning("notification dropped", target=self._name, title=dropped.title)
        self._waiting.append(message)
        self._idle.clear()
        self._arrived.set()

    async def close(self) -> None:
        """Sends what waits, each message once and without pauses, for a bounded time; then stops."""
        self._closing.set()
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._patience.closing)
        await stop(self._task)
        if not self._idle.is_set():
            log.warning("notifications are not sent any more", target=self._name, waiting=len(self._waiting))

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._idle.set()
                self._arrived.clear()
                await self._arrived.wait()
            try:
                await self._deliver(self._waiting.popleft())
            except Exception:  # a fault of ours with one message must not be the end of all
                log.exception("notification not sent", target=self._name)
                NOTIFICATIONS.labels("failed").inc()

    async def _deliver(self, message: Message) -> None:
        attempt, reason = 0, ""
        while attempt < self._patience.attempts:
            if attempt:
                log.info("notification not sent yet", target=self._name, reason=reason, attempts=attempt)
                await self._pause(attempt)
            outcome = await self._sender.send(message)
            if outcome.sent:
                NOTIFICATIONS.labels("sent").inc()
                return
            attempt, reason = attempt + 1, outcome.reason
            if outcome.hopeless or self._closing.is_set():
                break
        NOTIFICATIONS.labels("failed").inc()
        log.warning(
            "notification not sent", target=self._name, title=message.title, reason=reason, attempts=attempt
        )

    async def _pause(self, attempt: int) -> None:
        pause = min(self._patience.first_pause * 2 ** (attempt - 1), self._patience.longest_pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), pause * _random.uniform(0.5, 1))
