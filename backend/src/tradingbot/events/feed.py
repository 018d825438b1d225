"""The newest events of one user, in order and without gaps, shared by the user's clients."""

import asyncio
from collections import deque
from collections.abc import Iterable

from tradingbot.events.schemas import Event


class Feed:
    """Takes events in any order and any number of times; gives each once and in order.

    `last` is the number up to which it is complete, None until `start`. `newest` is the highest number known.
    """

    def __init__(self, size: int) -> None:
        self.last: int | None = None
        self.newest = 0
        self.listeners: set[asyncio.Event] = set()
        self._size = size
        self._recent: deque[tuple[int, str]] = deque(maxlen=size)
        self._early: dict[int, str] = {}

    @property
    def is_behind(self) -> bool:
        """Some event between `last` and `newest` is missing."""
        return self.last is not None and self.newest > self.last

    def start(self, last: int) -> None:
        """Begins after this number, or learns that this number exists."""
        if self.last is None:
            self.last = last
        self.newest = max(self.newest, last)

    def offer(self, event: Event) -> None:
        """Takes an event that has just happened."""
        self.newest = max(self.newest, event.sequence)
        if self.last is None or event.sequence <= self.last:
            return
        if event.sequence == self.last + 1 or len(self._early) < self._size:
            self._early[event.sequence] = event.for_client()
        self._advance()

    def load(self, events: Iterable[Event]) -> None:
        """Takes events from PostgreSQL, in order, which has all after `last` that still exist."""
        for event in events:
            if self.last is not None and event.sequence > self.last:
                if event.sequence > self.last + 1:
                    self._recent.clear()
                self._append(event.sequence, event.for_client())
        complete = self.last or 0
        self._early = {number: text for number, text in self._early.items() if number > complete}
        self._advance()

    def after(self, cursor: int) -> list[tuple[int, str]] | None:
        """Gives the messages after a number; None if they are not here any more (but in PostgreSQL)."""
        if self.last is None or cursor >= self.last:
            return []
        missing = self.last - cursor
        if missing > len(self._recent):
            return None
        return list(self._recent)[-missing:]

    def _advance(self) -> None:
        while self.last is not None and (message := self._early.pop(self.last + 1, None)) is not None:
            self._append(self.last + 1, message)

    def _append(self, sequence: int, message: str) -> None:
        self._recent.append((sequence, message))
        self.last = sequence
        self.newest = max(self.newest, sequence)
        for listener in self.listeners:
            listener.set()
