"""What the rest of the worker knows of notifications."""

from typing import Literal, Protocol

Kind = Literal["fill", "refusal", "failure"]


class Notifier(Protocol):
    """Tells people what happened."""

    def notify(self, kind: Kind, title: str, text: str) -> None:
        """Takes a message and returns at once; it is sent, repeated or dropped by others."""

    def start(self) -> None:
        """Starts sending."""

    async def close(self) -> None:
        """Sends what is waiting, for a bounded time, then stops."""


class Silence:
    """A notifier that tells nobody."""

    def notify(self, kind: Kind, title: str, text: str) -> None:
        """Does nothing."""

    def start(self) -> None:
        """Does nothing."""

    async def close(self) -> None:
        """Does nothing."""
