"""An exchange whose calls are counted and timed, and tell whether it answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

from tradingbot.core.metrics import exchange_call
from tradingbot.exchanges.base import (
    Exchange,
    MarketLimits,
    NotSentError,
    OrderReport,
    OrderRequest,
    OutcomeUnknownError,
)

# These are answered from what was learned before, most of the time.
_FROM_MEMORY = ("asset", "limits")


@dataclass
class Venue:
    """What accounts at one exchange share: whether it answers. `users` work with it now."""

    users: int = 0
    is_down: bool = False


class MeasuredExchange:
    """Does what `exchange` does, at its venue; `name` is its label in the metrics."""

    def __init__(self, exchange: Exchange, name: str, venue: Venue) -> None:
        self._exchange = exchange
        self._name = name
        self._venue = venue
        self.settle_time = exchange.settle_time

    async def place(self, order: OrderRequest) -> OrderReport:
        """Sends the order, once."""
        with self._call("place"):
            return await self._exchange.place(order)

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Gives the order."""
        with self._call("find"):
            return await self._exchange.find(client_order_id, symbol)

    async def cancel(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Cancels what is left of the order."""
        with self._call("cancel"):
            return await self._exchange.cancel(client_order_id, symbol)

    async def holding(self, symbol: str) -> Decimal | None:
        """Gives what the account holds of the symbol."""
        with self._call("holding"):
            return await self._exchange.holding(symbol)

    async def asset(self, symbol: str) -> str:
        """Return what a holding of the symbol is counted in."""
        with self._call("asset"):
            return await self._exchange.asset(symbol)

    async def price(self, symbol: str) -> Decimal | None:
        """Gives the last price of the symbol."""
        with self._call("price"):
            return await self._exchange.price(symbol)

    async def equity(self, symbol: str) -> Decimal | None:
        """Gives the account's equity in the quote asset of the symbol."""
        with self._call("equity"):
            return await self._exchange.equity(symbol)

    async def limits(self, symbol: str) -> MarketLimits:
        """Return what the symbol's market takes."""
        with self._call("limits"):
            return await self._exchange.limits(symbol)

    async def check_credentials(self) -> None:
        """Looks at what the key may do."""
        with self._call("check_credentials"):
            await self._exchange.check_credentials()

    async def close(self) -> None:
        """Closes connections."""
        await self._exchange.close()

    @contextmanager
    def _call(self, operation: str) -> Iterator[None]:
        with exchange_call(self._name, operation):
            try:
                yield
            except (NotSentError, OutcomeUnknownError):
                self._venue.is_down = True
                raise
            if operation not in _FROM_MEMORY:
                self._venue.is_down = False
