"""An exchange whose calls are counted and timed."""

from decimal import Decimal

from tradingbot.core.metrics import exchange_call
from tradingbot.exchanges.base import Exchange, MarketLimits, OrderReport, OrderRequest


class MeasuredExchange:
    """Does what `exchange` does; `name` is its label in the metrics."""

    def __init__(self, exchange: Exchange, name: str) -> None:
        self._exchange = exchange
        self._name = name
        self.settle_time = exchange.settle_time

    async def place(self, order: OrderRequest) -> OrderReport:
        """Sends the order, once."""
        with exchange_call(self._name, "place"):
            return await self._exchange.place(order)

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Gives the order."""
        with exchange_call(self._name, "find"):
            return await self._exchange.find(client_order_id, symbol)

    async def cancel(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Cancels what is left of the order."""
        with exchange_call(self._name, "cancel"):
            return await self._exchange.cancel(client_order_id, symbol)

    async def holding(self, symbol: str) -> Decimal | None:
        """Gives what the account holds of the symbol."""
        with exchange_call(self._name, "holding"):
            return await self._exchange.holding(symbol)

    async def asset(self, symbol: str) -> str:
        """Return what a holding of the symbol is counted in."""
        with exchange_call(self._name, "asset"):
            return await self._exchange.asset(symbol)

    async def price(self, symbol: str) -> Decimal | None:
        """Gives the last price of the symbol."""
        with exchange_call(self._name, "price"):
            return await self._exchange.price(symbol)

    async def equity(self, symbol: str) -> Decimal | None:
        """Gives the account's equity in the quote asset of the symbol."""
        with exchange_call(self._name, "equity"):
            return await self._exchange.equity(symbol)

    async def limits(self, symbol: str) -> MarketLimits:
        """Return what the symbol's market takes."""
        with exchange_call(self._name, "limits"):
            return await self._exchange.limits(symbol)

    async def check_credentials(self) -> None:
        """Looks at what the key may do."""
        with exchange_call(self._name, "check_credentials"):
            await self._exchange.check_credentials()

    async def close(self) -> None:
        """Closes connections."""
        await self._exchange.close()
