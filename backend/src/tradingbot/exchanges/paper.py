"""The exchange that costs nothing: fills every order at once, at the alert's price or a live public one.

With p that price, s the slippage rate, f the fee rate and q the quantity:

- fill price: p (1 + s) for a buy, p (1 - s) for a sell
- fee: q * fill price * f, in the quote asset
- equity: starting equity + Σ realised P&L - Σ fees + Σ q (last price - average price), over the positions of
  the account's strategies

Each product is rounded half to even to 18 places, the scale of the tables. An order has one trade, named like
the order: placing it again gives the same trade, which is booked once. Nothing is kept here; what was filled
is in the tables.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Protocol
from uuid import UUID

from tradingbot.core.amounts import ARITHMETIC, to_scale
from tradingbot.core.database import Database
from tradingbot.core.models import utc_now
from tradingbot.core.symbols import market_of
from tradingbot.exchanges import paper_repository
from tradingbot.exchanges.base import MarketLimits, OrderReport, OrderRequest, RejectedError, Trade
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.orders.models import OrderState, Side
from tradingbot.positions.accounting import PositionState, unrealised_pnl

_ONE = Decimal(1)


class PriceSource(Protocol):
    """Where live prices come from: a real exchange, asked without a key."""

    async def price(self, symbol: str) -> Decimal | None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class PaperAccount:
    """What the paper exchange needs of an exchange account."""

    id: UUID
    user_id: UUID
    is_default: bool
    fee_rate: Decimal
    slippage_rate: Decimal
    starting_equity: Decimal

    @classmethod
    def of(cls, account: ExchangeAccount) -> "PaperAccount":
        """Copies the account: the row may change later, in a session that is closed."""
        return cls(
            account.id,
            account.user_id,
            account.is_default,
            account.fee_rate,
            account.slippage_rate,
            account.starting_equity,
        )


def fill_price(price: Decimal, side: Side, slippage_rate: Decimal) -> Decimal:
    """Gives the price after slippage: a buy pays more, a sell gets less."""
    with localcontext(ARITHMETIC):
        factor = _ONE + slippage_rate if side == Side.BUY else _ONE - slippage_rate
        return to_scale(price * factor)


def fee(quantity: Decimal, price: Decimal, fee_rate: Decimal) -> Decimal:
    """Gives the fee of a fill, in the quote asset."""
    with localcontext(ARITHMETIC):
        return to_scale(quantity * price * fee_rate)


class PaperExchange:
    """One paper account; `live` is asked for prices instead of taking the alert's."""

    settle_time = 0.0

    def __init__(self, account: PaperAccount, database: Database, live: PriceSource | None = None) -> None:
        self._account = account
        self._database = database
        self._live = live

    async def place(self, order: OrderRequest) -> OrderReport:
        """Fills the order.

        Raises:
            RejectedError: there is no price.
            NotSentError: the exchange that has the price did not answer.
        """
        price = fill_price(await self._price_for(order), order.side, self._account.slippage_rate)
        trade = Trade(
            trade_id=order.client_order_id,
            quantity=order.quantity,
            price=price,
            fee=fee(order.quantity, price, self._account.fee_rate),
            fee_asset=None,
            at=utc_now(),
        )
        return OrderReport(order.client_order_id, order.client_order_id, OrderState.FILLED, (trade,))

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Gives None: an order whose fill is not in the tables was not filled, and may be placed again."""
        return None

    async def cancel(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Gives None: an order is filled at once or not there."""
        return None

    async def holding(self, symbol: str) -> Decimal | None:
        """Gives the signed sum of what the account's strategies hold of the symbol."""
        account = self._account
        async with self._database.transaction() as session:
            return await paper_repository.holding(
                session, account.user_id, account.id, symbol, is_default=account.is_default
            )

    async def asset(self, symbol: str) -> str:
        """Return the market: positions are all that a paper account holds."""
        return market_of(symbol)

    async def price(self, symbol: str) -> Decimal | None:
        """Gives the live price; None where the account takes the alerts'."""
        return None if self._live is None else await self._live.price(symbol)

    async def equity(self, symbol: str) -> Decimal | None:
        """Gives the equity at the last known prices; all symbols count as quoted in one asset."""
        account = self._account
        async with self._database.transaction() as session:
            rows = await paper_repository.positions(
                session, account.user_id, account.id, is_default=account.is_default
            )
        with localcontext(ARITHMETIC):
            total = account.starting_equity
            for row in rows:
                held = PositionState(row.quantity, row.average_price)
                total += row.realised_pnl - row.fees + unrealised_pnl(held, row.last_price)
            return to_scale(total)

    async def limits(self, symbol: str) -> MarketLimits:
        """Return none: any quantity is filled."""
        return MarketLimits()

    async def check_credentials(self) -> None:
        """Has none to check."""

    async def close(self) -> None:
        """Closes the connection to where live prices come from."""
        if self._live is not None:
            await self._live.close()

    async def _price_for(self, order: OrderRequest) -> Decimal:
        price = order.price if self._live is None else await self._live.price(order.symbol)
        if price is None or price <= 0:
            source = (
                "the alert has no price" if self._live is None else "the exchange has no live price of it"
            )
            raise RejectedError(f"{order.symbol}: no price to fill at: {source}")
        return price
