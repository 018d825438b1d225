"""The versions that the tests deploy, and what it means that nobody has noticed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.load import ledger, versions
from tests.load.result import Result

Loaded = Callable[..., AbstractContextManager[list[Result]]]
BACK_WITHIN = 2.0
ADMINISTRATOR = "psql -XAtq -v ON_ERROR_STOP=1 -U postgres -d tradingbot -f -"
# Sound ones; what is wrong with the others their names say.
GOOD = ["9.1.1", "9.1.2", "9.1.3", "9.1.4", "9.1.5"]
NEVER_READY = "9.2.0"
BREAKS_MIGRATING = "9.2.1"
DIES = "9.2.2"
DROPS_UNSAID = "9.2.3"
EXPANDS = "9.3.0"
CONTRACTS = "9.4.0"
MADE = [
    *(versions.Version(number) for number in GOOD),
    versions.Version(NEVER_READY, program="never_ready"),
    versions.Version(BREAKS_MIGRATING, steps=(versions.BREAKS,)),
    versions.Version(DIES, program="dies"),
    versions.Version(DROPS_UNSAID, steps=(versions.DROPS_UNSAID,)),
    versions.Version(EXPANDS, steps=(versions.ADDS,)),
    versions.Version(CONTRACTS, steps=(versions.ADDS, versions.DROPS)),
]


def to(version: str) -> list[str]:
    """Return the arguments of a deploy of *version*."""
    return ["-e", f"backend_version={version}", "-e", f'{{"backend_image": "{versions.IMAGE}"}}']


def nobody_noticed(result: Result, ask: ledger.Query, restarts: int) -> None:
    """Require that nothing failed, and that each WebSocket was told *restarts* times to come back, and did in time."""
    assert result.failures == []
    assert result.requests / result.seconds >= 100
    assert result.answered["POST alert"] / result.requests > 0.45
    assert result.missed() == 0
    assert {close.code for close in result.closes()} <= {1012}, result.closes()
    assert {len(socket.closes) for socket in result.sockets} == {restarts}
    late = [close for close in result.closes() if close.back_after is None or close.back_after > BACK_WITHIN]
    assert late == []
    books_balance(result, ask)


def books_balance(result: Result, ask: ledger.Query) -> None:
    """Require that each alert that was answered 202 is stored once, and ordered at most once so far."""
    assert ledger.problems(result, ask) == []
