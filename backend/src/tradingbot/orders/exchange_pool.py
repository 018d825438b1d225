"""The exchanges that a worker speaks to: opened when first needed, one for each account.

An exchange that does not answer holds up each question for as long as it may take, and there are a few loops
for all accounts. So while it does not answer one at a time asks it, and all others are told so at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import structlog

from tradingbot.core.errors import UnavailableError
from tradingbot.exchanges.base import Exchange, ExchangeError, NotSentError
from tradingbot.exchanges.measured import MeasuredExchange, Venue
from tradingbot.exchanges.models import ExchangeAccount

log = structlog.stdlib.get_logger("tradingbot.exchanges")

Opener = Callable[[ExchangeAccount], Exchange]
ResultT = TypeVar("ResultT")


# Until one who was told that an exchange does not answer tries again.
_WHILE_DOWN = 1.0


class _Open:
    """An exchange, and how many use it now."""

    def __init__(self, exchange: Exchange, fingerprint: Hashable, venue: Venue) -> None:
        self.exchange = exchange
        self.fingerprint = fingerprint
        self.venue = venue
        self.users = 0


class ExchangePool:
    """Opens an exchange by `opener`, and another one when the account has changed."""

    def __init__(self, opener: Opener, timeout: float) -> None:
        self._opener = opener
        self._open: dict[UUID, _Open] = {}
        self._retired: list[_Open] = []
        self._venues: dict[tuple[str, str, str], Venue] = defaultdict(Venue)
        # Seconds after which we do not wait for an answer any more, whatever the exchange's own limit does.
        self.timeout = timeout

    @asynccontextmanager
    async def of(self, account: ExchangeAccount) -> AsyncIterator[Exchange]:
        """Gives the account's exchange.

        Raises:
            CredentialsError, EnvelopeError: it cannot be opened.
            NotSentError: the exchange does not answer, and somebody else asks it just now.
        """
        opened, idle = self._take(account)
        venue = opened.venue
        is_asked = venue.is_down and venue.users > 0
        # Counted before anybody else may run: one that looks unused is closed.
        opened.users += 1
        venue.users += 1
        try:
            if idle is not None:
                await _close(idle.exchange)
            if is_asked:
                raise NotSentError("it does not answer others either", _WHILE_DOWN)
            yield opened.exchange
        finally:
            venue.users -= 1
            opened.users -= 1
            if opened.users == 0 and opened in self._retired:
                self._retired.remove(opened)
                await _close(opened.exchange)

    async def close(self) -> None:
        """Closes all."""
        for opened in [*self._open.values(), *self._retired]:
            await _close(opened.exchange)
        self._open.clear()
        self._retired.clear()

    def _take(self, account: ExchangeAccount) -> tuple[_Open, _Open | None]:
        """Gives the account's exchange, and one in its place before that nobody uses any more."""
        fingerprint = _fingerprint(account)
        before = self._open.get(account.id)
        if before is not None and before.fingerprint == fingerprint:
            return before, None
        venue = self._venues[account.exchange, account.market, account.mode]
        measured = MeasuredExchange(self._opener(account), account.exchange, venue)
        fresh = _Open(measured, fingerprint, venue)
        self._open[account.id] = fresh
        if before is not None and before.users:
            self._retired.append(before)
            return fresh, None
        return fresh, before


async def ask(question: Awaitable[ResultT], seconds: float) -> ResultT:
    """Waits for an answer that changes nothing at the exchange; whatever goes wrong, it may be asked again.

    Raises:
        ExchangeError: as the exchange says; NotSentError for a time-out and for what it should not raise.
        UnavailableError: PostgreSQL is away.
    """
    try:
        async with asyncio.timeout(seconds):
            return await question
    except (ExchangeError, UnavailableError):
        raise
    except TimeoutError:
        raise NotSentError("the exchange did not answer in time") from None
    except Exception as error:
        log.exception("an exchange's answer is not understood")
        raise NotSentError(f"the answer was not understood: {type(error).__name__}") from error


def _fingerprint(account: ExchangeAccount) -> Hashable:
    return tuple(getattr(account, column.key) for column in ExchangeAccount.__table__.columns)


async def _close(exchange: Exchange) -> None:
    try:
        async with asyncio.timeout(5):
            await exchange.close()
    except Exception:
        log.exception("an exchange does not close")
