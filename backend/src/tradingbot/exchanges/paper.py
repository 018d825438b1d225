"""The exchange that costs nothing: fills orders at once, at the alert's price or a live public one.

With p that price, s the slippage rate, f the fee rate and q the quantity:

- fill price: p (1 + s) for a buy, p (1 - s) for a sell
- fee: q * fill price * f, in the quote asset. With live prices q is rounded as the exchange would, and on
  spot the fee of a buy is taken from what is bought, q f: without them nothing tells that asset's name
- equity: starting equity + Σ realised P&L - Σ fees + Σ q (last price - average price), over the positions of
  the account's strategies
- free: equity - Σ |q| last price - what orders cost that are filled and not booked yet

An order may cost what is free. Of what is long, prices cancel out: on spot, where nothing else is held, free
is the starting equity + Σ realised P&L - Σ fees - Σ q average price, the cash. Of contracts it means that all
that is held is worth no more than the equity: leverage 1, which is all that an alert may ask for, and more
would need liquidations to be honest. What closes is never refused for lack of money.

Products that are stored are rounded half to even to 18 places, the scale of the tables; money is compared in
the 8 places that exchanges keep. An order has one trade, named like the order. The price that it is filled
at is noted with the order, under the account's lock, before it is reported: of two orders the second one sees
what the first one costs, placing again gives the same trade, and who finds an order so marked books it.
Nothing else is kept here.
"""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC, plain, to_scale
from tradingbot.core.database import Database
from tradingbot.core.models import utc_now
from tradingbot.core.symbols import market_of
from tradingbot.exchanges import paper_repository
from tradingbot.exchanges.base import (
    MarketLimits,
    OrderReport,
    OrderRequest,
    RejectedError,
    Trade,
    UnknownSymbolError,
)
from tradingbot.exchanges.models import ExchangeAccount, Market
from tradingbot.orders import repository as orders
from tradingbot.orders.models import FINAL_STATES, Order, OrderState, Side
from tradingbot.positions import service as positions

_ONE = Decimal(1)
# The places in which money is compared.
_PLACES = Decimal("1e-8")


class Live(Protocol):
    """Where live prices come from, and what a market takes: a real exchange, asked without a key."""

    async def price(self, symbol: str) -> Decimal | None: ...

    async def limits(self, symbol: str) -> MarketLimits: ...

    async def sendable(self, order: OrderRequest) -> tuple[Decimal, str]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class PaperAccount:
    """What the paper exchange needs of an exchange account."""

    id: UUID
    user_id: UUID
    is_default: bool
    market: Market
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
            Market(account.market),
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

    def __init__(self, account: PaperAccount, database: Database, live: Live | None = None) -> None:
        self._account = account
        self._database = database
        self._live = live

    async def place(self, order: OrderRequest) -> OrderReport:
        """Fills the order.

        Raises:
            RejectedError: there is no price, the market does not take it, it costs more than is free, or it
                sells on spot what is not held.
            NotSentError: the exchange that has the price did not answer.
        """
        last = await self._price_for(order)
        price = fill_price(last, order.side, self._account.slippage_rate)
        trade = await self._trade(replace(order, price=last), price)
        async with self._database.transaction() as session:
            await paper_repository.lock_account(session, self._account.id)
            stored = await orders.find_by_client_order_id(
                session, self._account.user_id, order.client_order_id, lock=True
            )
            if stored is None or stored.state in FINAL_STATES:
                raise RejectedError("the order is over")
            if stored.average_price is None:
                await self._pay(session, stored, trade)
                stored.average_price = trade.price
        if stored.average_price != trade.price:
            trade = await self._trade(_request(stored), stored.average_price)
        return _report(trade)

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Return the fill that may not be booked yet; None: it was not filled, and may be placed again."""
        async with self._database.transaction() as session:
            stored = await orders.find_by_client_order_id(session, self._account.user_id, client_order_id)
        if stored is None or stored.average_price is None:
            return None
        return _report(await self._trade(_request(stored), stored.average_price))

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
            purse = await paper_repository.purse(
                session, account.user_id, account.id, is_default=account.is_default
            )
        return to_scale(ARITHMETIC.add(account.starting_equity, purse.result))

    async def limits(self, symbol: str) -> MarketLimits:
        """Return the live market's; without one any quantity is filled, and on spot nothing is held short."""
        if self._live is not None:
            return await self._live.limits(symbol)
        return MarketLimits(shorts=self._account.market == Market.FUTURE)

    async def check_credentials(self) -> None:
        """Has none to check."""

    async def close(self) -> None:
        """Closes the connection to where live prices come from."""
        if self._live is not None:
            await self._live.close()

    async def _price_for(self, order: OrderRequest) -> Decimal:
        price = order.price if self._live is None else await self._live.price(order.symbol)
        if price is None and order.reduce_only:
            # The market is gone. An exit gets out, at the last price that is known.
            price = order.price
        if price is None or price <= 0:
            source = (
                "the alert has no price" if self._live is None else "the exchange has no live price of it"
            )
            raise RejectedError(f"{order.symbol}: no price to fill at: {source}")
        return price

    async def _trade(self, order: OrderRequest, price: Decimal) -> Trade:
        """Return what the order is filled with at `price`; without one of its own its value is not checked.

        Raises:
            RejectedError: the market does not take it.
            NotSentError: the exchange that has the market did not answer.
        """
        account, quantity, base = self._account, order.quantity, None
        if self._live is not None:
            try:
                quantity, base = await self._live.sendable(order)
                least = (await self._live.limits(order.symbol)).min_exit(order.price)
            except UnknownSymbolError:
                if not order.reduce_only:
                    raise
                least = Decimal(0)
            if order.reduce_only and quantity < least:
                raise RejectedError(f"NOTIONAL: {plain(quantity)} {order.symbol} is less than {plain(least)}")
        paid = fee(quantity, price, account.fee_rate)
        # A buy that only closes is of a short that an earlier version let in on spot: it gets out wholly.
        if account.market != Market.SPOT or order.side != Side.BUY or order.reduce_only:
            base = None
        if base is not None:
            quantity = to_scale(ARITHMETIC.multiply(quantity, _ONE - account.fee_rate))
        return Trade(order.client_order_id, quantity, price, paid, base, utc_now())

    async def _pay(self, session: AsyncSession, order: Order, trade: Trade) -> None:
        """Refuse what would cost more than is free; the account is locked.

        Raises:
            RejectedError: it does, or it sells on spot what is not held.
        """
        account = self._account
        held = await positions.held_quantity(session, order.strategy_id, order.symbol)
        is_against = held != 0 and (held > 0) == (order.side == Side.SELL)
        closed = min(abs(held), trade.quantity) if is_against else Decimal(0)
        is_sale_on_spot = account.market == Market.SPOT and order.side == Side.SELL
        if (order.reduce_only or is_sale_on_spot) and closed < trade.quantity:
            raise RejectedError(f"{plain(trade.quantity)} {order.symbol} is more than is held, {plain(held)}")
        if order.reduce_only:
            return
        purse = await paper_repository.purse(
            session,
            account.user_id,
            account.id,
            is_default=account.is_default,
            symbol=order.symbol,
            price=trade.price,
        )
        with localcontext(ARITHMETIC):
            cost = (trade.quantity - 2 * closed) * trade.price + trade.fee
            free = (
                account.starting_equity + purse.result - purse.tied - purse.spent * (_ONE + account.fee_rate)
            )
            # Rounding of prices and fees is nobody's loss.
            cost, free = (
                cost.quantize(_PLACES, ROUND_FLOOR),
                max(free, Decimal(0)).quantize(_PLACES, ROUND_CEILING),
            )
        if cost > free:
            raise RejectedError(
                f"{plain(trade.quantity)} {order.symbol} would cost {plain(cost)} with its fee,"
                f" and {plain(free)} is free on the paper account"
            )


def _request(order: Order) -> OrderRequest:
    side, quantity = Side(order.side), order.quantity
    return OrderRequest(order.client_order_id, order.symbol, side, quantity, reduce_only=order.reduce_only)


def _report(trade: Trade) -> OrderReport:
    return OrderReport(trade.trade_id, trade.trade_id, OrderState.FILLED, (trade,))
