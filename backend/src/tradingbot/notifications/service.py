"""The notifier of the worker: lets through the kinds that are wanted, and not a flood of them."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from tradingbot.core.metrics import NOTIFICATIONS
from tradingbot.core.settings import ObservabilitySettings
from tradingbot.notifications.delivery import Delivery, Patience
from tradingbot.notifications.notifier import Kind, Notifier, Silence
from tradingbot.notifications.targets import Message, Target, targets_of

_TITLES_IN_SUMMARY = 5
_PLURALS = {"fill": "fills", "refusal": "refusals", "failure": "failures"}


@dataclass(frozen=True)
class Rate:
    """So many messages at most within `window` seconds; what is more becomes one summary."""

    messages: int = 10
    window: float = 60.0


class Notifications:
    """Sends to all targets; each has a queue of its own, so that one that is away holds up no other."""

    def __init__(
        self,
        targets: Sequence[Target],
        kinds: Sequence[Kind] = ("fill", "refusal", "failure"),
        rate: Rate | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._deliveries = [Delivery(target, patience or Patience()) for target in targets]
        self._kinds = frozenset(kinds)
        self._rate = rate or Rate()
        self._recent: deque[float] = deque()
        self._held: list[Message] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts sending."""
        for delivery in self._deliveries:
            delivery.start()

    def notify(self, kind: Kind, title: str, text: str) -> None:
        """Takes a message, if its kind is wanted, and returns at once. To be called in the event loop."""
        if kind not in self._kinds:
            return
        message = Message(kind, title, text)
        now = time.monotonic()
        while self._recent and now - self._recent[0] >= self._rate.window:
            self._recent.popleft()
        if len(self._recent) < self._rate.messages and not self._held:
            self._put(message, now)
            return
        NOTIFICATIONS.labels("collapsed").inc()
        self._held.append(message)
        if self._timer is None:
            pause = self._rate.window - (now - self._recent[0])
            self._timer = asyncio.get_running_loop().call_later(pause, self._summarise)

    async def close(self) -> None:
        """Sends what waits, for a bounded time, then stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._summarise()
        await asyncio.gather(*(delivery.close() for delivery in self._deliveries))

    def _put(self, message: Message, now: float) -> None:
        self._recent.append(now)
        for delivery in self._deliveries:
            delivery.put(message)

    def _summarise(self) -> None:
        held, self._held, self._timer = self._held, [], None
        self._put(summary(held), time.monotonic())


def summary(messages: Sequence[Message]) -> Message:
    """Makes one message of many: their number by kind, and the titles of some, failures first."""
    counts = Counter(message.kind for message in messages)
    worst: Kind = next(kind for kind in ("failure", "refusal", "fill") if counts[kind])
    number = ", ".join(f"{counts[kind]} {_PLURALS[kind] if counts[kind] > 1 else kind}" for kind in counts)
    by_weight = sorted(messages, key=lambda message: message.kind != worst)
    titles = [f"- {message.title}" for message in by_weight[:_TITLES_IN_SUMMARY]]
    rest = len(messages) - len(titles)
    lines = [*titles, f"- and {rest} more"] if rest else titles
    return Message(worst, f"{len(messages)} more: {number}", "\n".join(lines))


def make_notifier(settings: ObservabilitySettings) -> Notifier:
    """Makes the notifier that the settings ask for; without NOTIFY_URLS one that is silent.

    Raises:
        SettingsRefusedError: an address cannot be used.
    """
    if settings.notify_urls is None:
        return Silence()
    return Notifications(targets_of(settings.notify_urls.get_secret_value()), settings.notify_events)
