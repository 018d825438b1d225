"""What came of working on a row of the outbox."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# Told of every step between claim and fill. Does nothing in the worker; tests kill the process in it.
Steps = Callable[[str], Awaitable[None]]


async def no_steps(_name: str) -> None:
    """Does nothing."""


@dataclass(frozen=True)
class Done:
    """Nothing is left to do: the row may go."""


@dataclass(frozen=True)
class Later:
    """Not now. `seconds` is when, None: after a pause that grows with every attempt.

    `stuck` is the symbol of an exit that does not get out: people are told, less often with each attempt.
    """

    reason: str
    seconds: float | None = None
    stuck: str | None = None


Outcome = Done | Later
DONE = Done()
