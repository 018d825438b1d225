"""What the exchange knows: symbols, accounts, orders, trades. Decimals throughout."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count
from typing import Any

from tests.stub_exchange.fills import Filling, split

DEFAULT_KEY = "stub-key-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRS"
DEFAULT_SECRET = "stub-secret-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO"
SPOT = "spot"
FUTURE = "future"
OPEN = ("NEW", "PARTIALLY_FILLED")
LEVERAGE = 20


class BookError(Exception):
    """A refusal as Binance words it."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Symbol:
    """One market and its filters."""

    id: str
    base: str
    quote: str
    market: str
    step: Decimal
    tick: Decimal
    minimum: Decimal
    min_notional: Decimal
    market_step: Decimal = Decimal(0)
    maximum: Decimal = Decimal(9000)
    # The largest market order, which may be smaller than the largest one with a limit.
    market_maximum: Decimal = Decimal(9000)
    contract: str = "PERPETUAL"
    delivery: int = 4133404800000
    status: str = "TRADING"


def _symbols() -> list[Symbol]:
    d = Decimal
    return [
        Symbol("BTCUSDT", "BTC", "USDT", SPOT, d("0.00001"), d("0.01"), d("0.00001"), d(5)),
        Symbol("ETHUSDT", "ETH", "USDT", SPOT, d("0.0001"), d("0.01"), d("0.0001"), d(5)),
        Symbol("ETHBTC", "ETH", "BTC", SPOT, d("0.0001"), d("0.00001"), d("0.0001"), d("0.0001")),
        Symbol("BNBUSDT", "BNB", "USDT", SPOT, d("0.001"), d("0.01"), d("0.001"), d(5)),
        Symbol(
            "SHIBUSDT", "SHIB", "USDT", SPOT, d(1), d("0.00000001"), d(1), d(5),
            maximum=d(10) ** 10, market_maximum=d(10) ** 10,
        ),
        Symbol(
            "LUNAUSDT", "LUNA", "USDT", SPOT, d("0.01"), d("0.0001"), d("0.01"), d(5), status="BREAK"
        ),
        Symbol("BTCUSDT", "BTC", "USDT", FUTURE, d("0.001"), d("0.1"), d("0.001"), d(100), d("0.001")),
        Symbol("ETHUSDT", "ETH", "USDT", FUTURE, d("0.001"), d("0.01"), d("0.001"), d(20), d("0.001")),
        Symbol(
            "BTCUSDT_270326", "BTC", "USDT", FUTURE, d("0.001"), d("0.1"), d("0.001"), d(100), d("0.001"),
            contract="CURRENT_QUARTER", delivery=1806048000000,
        ),
    ]  # fmt: skip


PRICES = {
    "BTCUSDT": Decimal(50000),
    "ETHUSDT": Decimal(2500),
    "ETHBTC": Decimal("0.05"),
    "BNBUSDT": Decimal(600),
    "SHIBUSDT": Decimal("0.00002"),
    "LUNAUSDT": Decimal(1),
    "BTCUSDT_270326": Decimal(51000),
}


@dataclass
class Execution:
    """One trade."""

    id: int
    quantity: Decimal
    price: Decimal
    commission: Decimal
    commission_asset: str
    time: int
    realised: Decimal = Decimal(0)


@dataclass
class Booked:
    """An order that the exchange took."""

    id: int
    client_order_id: str
    symbol: Symbol
    side: str
    type: str
    quantity: Decimal
    price: Decimal
    reduce_only: bool
    time: int
    status: str = "NEW"
    executions: list[Execution] = field(default_factory=list)
    parts: list[Decimal] = field(default_factory=list)

    @property
    def executed(self) -> Decimal:
        """The quantity that is filled."""
        return sum((trade.quantity for trade in self.executions), Decimal(0))

    @property
    def cost(self) -> Decimal:
        """The quote quantity that is filled."""
        return sum((trade.quantity * trade.price for trade in self.executions), Decimal(0))

    def is_of(self, symbol: Symbol) -> bool:
        """Return whether the order is of this market, which may have changed since."""
        return (self.symbol.market, self.symbol.id) == (symbol.market, symbol.id)

    @property
    def sign(self) -> int:
        """1 for a buy, -1 for a sell."""
        return 1 if self.side == "BUY" else -1


@dataclass
class Account:
    """One customer: what the key opens."""

    key: str = DEFAULT_KEY
    secret: str = DEFAULT_SECRET
    may_withdraw: bool = False
    may_trade: bool = True
    balances: dict[str, Decimal] = field(
        default_factory=lambda: {"USDT": Decimal(1_000_000), "BTC": Decimal(10), "BNB": Decimal(5)}
    )
    wallet: Decimal = Decimal(1_000_000)
    positions: dict[str, Decimal] = field(default_factory=dict)
    entry_prices: dict[str, Decimal] = field(default_factory=dict)
    orders: list[Booked] = field(default_factory=list)

    def booked(self, client_order_id: str) -> int:
        """Counts the orders of this client order id that were taken: 2 is a doubled order."""
        return sum(order.client_order_id == client_order_id for order in self.orders)

    def counts(self) -> Counter[str]:
        """Counts the orders that were taken by client order id."""
        return Counter(order.client_order_id for order in self.orders)

    def order(self, client_order_id: str) -> Booked:
        """Gives the latest order of this client order id."""
        for order in reversed(self.orders):
            if order.client_order_id == client_order_id:
                return order
        raise BookError(-2013, "Order does not exist.")


@dataclass
class Book:
    """Everything but the accounts' keys: prices, fees, how orders are filled."""

    prices: dict[str, Decimal] = field(default_factory=lambda: dict(PRICES))
    # What market orders on spot are judged by, where it is not the price.
    average_prices: dict[str, Decimal] = field(default_factory=dict)
    symbols: list[Symbol] = field(default_factory=_symbols)
    filling: Filling = field(default_factory=Filling)
    fee_rate: Decimal = Decimal("0.001")
    # `quote`, `base` (what Binance takes from a spot buy), or an asset such as BNB.
    fee_asset: str = "quote"
    # Added to the machine's clock.
    clock_offset: float = 0.0
    _ids: Any = field(default_factory=lambda: count(1001))
    _trade_ids: Any = field(default_factory=lambda: count(500_001))

    def now(self) -> int:
        """The exchange's time in milliseconds."""
        return int((time.time() + self.clock_offset) * 1000)

    def symbol(self, market: str, name: str) -> Symbol:
        """Gives a market."""
        for symbol in self.symbols:
            if symbol.id == name and symbol.market == market:
                return symbol
        raise BookError(-1121, "Invalid symbol.")

    def change(self, market: str, name: str, **values: Any) -> None:
        """Changes a market: `status="BREAK"` closes it, `market_maximum` limits market orders."""
        self.symbols = [
            replace(symbol, **values) if (symbol.market, symbol.id) == (market, name) else symbol
            for symbol in self.symbols
        ]

    def place(
        self,
        account: Account,
        symbol: Symbol,
        side: str,
        kind: str,
        quantity: Decimal,
        price: Decimal | None,
        client_order_id: str,
        reduce_only: bool,
    ) -> Booked:
        """Takes an order or refuses it, and fills what is filled at once."""
        if symbol.status != "TRADING":
            raise BookError(-1013, "Market is closed.")
        if not account.may_trade:
            raise BookError(-2010, "This account may not place or cancel orders.")
        for order in account.orders:
            same = order.client_order_id == client_order_id and order.symbol.market == symbol.market
            if same and order.status in OPEN:
                if symbol.market == SPOT:
                    raise BookError(-2010, "Duplicate order sent.")
                raise BookError(-4116, "ClientOrderId is duplicated.")
        at = price or self.prices[symbol.id]
        self._check_filters(symbol, kind, quantity, at, reduce_only)
        quantity = self._check_funds(account, symbol, side, quantity, at, reduce_only)
        order = Booked(
            next(self._ids), client_order_id, symbol, side, kind, quantity, price or Decimal(0), reduce_only,
            self.now(),
        )  # fmt: skip
        order.parts = split(quantity, self.filling.parts, symbol.step)
        account.orders.append(order)
        if kind == "MARKET" and self.filling.how == "at_once":
            while order.parts and order.status in OPEN:
                self.fill(account, order)
                if len(order.executions) == self.filling.expires_after and order.parts:
                    order.status = "EXPIRED"
                    order.parts.clear()
        return order

    def fill(self, account: Account, order: Booked) -> None:
        """Fills the next part of an order."""
        if not order.parts or order.status not in OPEN:
            return
        quantity = order.parts.pop(0)
        step = self.filling.price_step * len(order.executions) * order.sign
        price = (order.price or self.prices[order.symbol.id]) + step
        fee, asset = self._fee(order, quantity, price)
        trade = Execution(next(self._trade_ids), quantity, price, fee, asset, self.now())
        order.executions.append(trade)
        order.status = "PARTIALLY_FILLED" if order.parts else "FILLED"
        self._settle(account, order, trade)

    def cancel(self, order: Booked) -> Booked:
        """Cancels what is left of an order."""
        if order.status not in OPEN:
            raise BookError(-2011, "Unknown order sent.")
        order.status = "CANCELED"
        order.parts.clear()
        return order

    def _check_filters(
        self, symbol: Symbol, kind: str, quantity: Decimal, price: Decimal, reduce_only: bool
    ) -> None:
        notional = quantity * self.average_prices.get(symbol.id, price)
        maximum = min(symbol.maximum, symbol.market_maximum) if kind == "MARKET" else symbol.maximum
        if symbol.market == SPOT:
            if quantity < symbol.minimum or quantity > symbol.maximum or quantity % symbol.step:
                raise BookError(-1013, "Filter failure: LOT_SIZE")
            if quantity > maximum:
                raise BookError(-1013, "Filter failure: MARKET_LOT_SIZE")
            if notional < symbol.min_notional:
                raise BookError(-1013, "Filter failure: NOTIONAL")
            return
        if quantity <= 0:
            raise BookError(-4003, "Quantity less than or equal to zero.")
        if quantity % symbol.step:
            raise BookError(-1111, "Precision is over the maximum defined for this asset.")
        if quantity > maximum:
            raise BookError(-4005, "Quantity greater than max quantity.")
        if notional < symbol.min_notional and not reduce_only:
            raise BookError(
                -4164,
                f"Order's notional must be no smaller than {symbol.min_notional}"
                " (unless you choose reduce only).",
            )

    def _check_funds(
        self,
        account: Account,
        symbol: Symbol,
        side: str,
        quantity: Decimal,
        price: Decimal,
        reduce_only: bool,
    ) -> Decimal:
        if symbol.market == SPOT:
            asset, needed = (symbol.quote, quantity * price) if side == "BUY" else (symbol.base, quantity)
            if account.balances.get(asset, Decimal(0)) < needed:
                raise BookError(-2010, "Account has insufficient balance for requested action.")
            return quantity
        held = account.positions.get(symbol.id, Decimal(0))
        if reduce_only:
            if held == 0 or (held > 0) == (side == "BUY"):
                raise BookError(-2022, "ReduceOnly Order is rejected.")
            return min(quantity, abs(held))
        if account.wallet * LEVERAGE < quantity * price:
            raise BookError(-2019, "Margin is insufficient.")
        return quantity

    def _fee(self, order: Booked, quantity: Decimal, price: Decimal) -> tuple[Decimal, str]:
        quote_fee = quantity * price * self.fee_rate
        if self.fee_asset == "quote" or (order.symbol.market == FUTURE and self.fee_asset == "base"):
            return quote_fee, order.symbol.quote
        if self.fee_asset == "base":
            if order.side == "BUY":
                return quantity * self.fee_rate, order.symbol.base
            return quote_fee, order.symbol.quote
        rate = self.prices.get(f"{self.fee_asset}{order.symbol.quote}", Decimal(1))
        return (quote_fee / rate).quantize(Decimal("0.00000001")), self.fee_asset

    def _settle(self, account: Account, order: Booked, trade: Execution) -> None:
        symbol, signed = order.symbol, trade.quantity * order.sign
        if symbol.market == SPOT:
            _add(account.balances, symbol.base, signed)
            _add(account.balances, symbol.quote, -signed * trade.price)
            _add(account.balances, trade.commission_asset, -trade.commission)
            return
        held = account.positions.get(symbol.id, Decimal(0))
        entry = account.entry_prices.get(symbol.id, Decimal(0))
        closed = min(abs(held), abs(signed)) if held * signed < 0 else Decimal(0)
        trade.realised = closed * (trade.price - entry) * (1 if held > 0 else -1)
        after = held + signed
        if closed == 0 and after:
            entry = (abs(held) * entry + abs(signed) * trade.price) / abs(after)
        elif abs(signed) > abs(held):
            entry = trade.price
        account.positions[symbol.id] = after
        account.entry_prices[symbol.id] = entry if after else Decimal(0)
        account.wallet += trade.realised - (trade.commission if trade.commission_asset == symbol.quote else 0)


def _add(balances: dict[str, Decimal], asset: str, amount: Decimal) -> None:
    balances[asset] = balances.get(asset, Decimal(0)) + amount
