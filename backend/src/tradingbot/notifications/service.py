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
_BY_WEIGHT: tuple[Kind, ...] = ("failure", "refusal", "fill")
_PLURALS = {"fill": "fills", "refusal": "refusals", "failure": "failures"}


@dataclass(frozen=True)
class Rate:
    """So many messages at most within `window` seconds; what is more becomes one summary."""

    messages: int = 10
    window: float = 60.0


class Summary:
    """One message for many: their number by kind, and the titles of some, failures first.

    However many they are, it takes the same little memory.
    """

    def __init__(self) -> None:
        self._counts: Counter[Kind] = Counter()
        self._titles: dict[Kind, list[str]] = {kind: [] for kind in _BY_WEIGHT}

    def add(self, message: Message) -> None:
        """Counts one more."""
        self._counts[message.kind] += 1
        if len(self._titles[message.kind]) < _TITLES_IN_SUMMARY:
            self._titles[message.kind].append(message.title)

    def message(self) -> Message:
        """What to send for those that were added: one at least."""
        total = self._counts.total()
        worst = next(kind for kind in _BY_WEIGHT if self._counts[kind])
        number = ", ".join(
            f"{count} {_PLURALS[kind] if count > 1 else kind}" for kind, count in self._counts.items()
        )
        titles = [title for kind in _BY_WEIGHT for title in self._titles[kind]][:_TITLES_IN_SUMMARY]
        lines = [f"- {title}" for title in titles]
        if total > len(titles):
            lines.append(f"- and {total - len(titles)} more")
        return Message(worst, f"{total} more: {number}", "\n".join(lines))


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
        self._held: Summary | None = None
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
        if len(self._recent) < self._rate.messages and self._held is None:
            self._put(message, now)
            return
        NOTIFICATIONS.labels("collapsed").inc()
        if self._held is None:
            self._held = Summary()
            pause = self._rate.window - (now - self._recent[0])
            self._timer = asyncio.get_running_loop().call_later(pause, self._summarise)
        self._held.add(message)

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
        held, self._held = self._held, None
        if held is not None:
            self._put(held.message(), time.monotonic())


def make_notifier(settings: ObservabilitySettings) -> Notifier:
    """Makes the notifier that the settings ask for; without NOTIFY_URLS one that is silent.

    Raises:
        SettingsRefusedError: an address cannot be used.
    """
    if settings.notify_urls is None:
        return Silence()
    return Notifications(targets_of(settings.notify_urls.get_secret_value()), settings.notify_events)
