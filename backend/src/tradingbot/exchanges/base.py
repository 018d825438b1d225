"""What the worker asks of an exchange, and what it may answer: the same for paper and for real ones."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Protocol

from tradingbot.core.amounts import ARITHMETIC, to_scale
from tradingbot.orders.models import OrderState, Side


@dataclass(frozen=True)
class OrderRequest:
    """A market order: `quantity` in the base asset; `price` is what it was decided at, in the quote asset.

    `issued_at` is when it was decided to send it (now, if not given). An exchange that refuses what comes
    later than a window after that cannot be reached by a request that was held up on its way.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal | None = None
    reduce_only: bool = False
    issued_at: datetime | None = None


@dataclass(frozen=True)
class Trade:
    """One execution. `fee` is in the quote asset; `at` is aware UTC.

    `fee_asset` is what it was paid in, and `unvalued_fee` what of it is not in `fee`, since no price of that
    asset in the quote asset is known. A fee that the exchange took from the bought asset has been taken off
    `quantity` too: that is what the account holds, and what can be sold again.
    """

    trade_id: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str | None
    at: datetime
    unvalued_fee: Decimal = Decimal(0)


@dataclass(frozen=True)
class OrderReport:
    """Where an order stands at the exchange, with all of its trades so far.

    `state` is one of submitted (accepted, nothing filled), partially_filled, filled, cancelled, rejected.
    filled and cancelled are said only with all trades: until the exchange has told them, the order counts as
    open. What is filled may be less than what was asked for, which is rounded down to the market's step.
    """

    client_order_id: str
    exchange_order_id: str | None
    state: OrderState
    trades: tuple[Trade, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class MarketLimits:
    """What a market takes of market orders. Quantities are in the base asset, values in the quote asset.

    Of what is asked for whole `step`s are sent (0: all of it). `shorts`: whether less than nothing can be
    held. Where it can (contracts), an order that only brings a position nearer to zero may be worth less
    than `min_value`.
    """

    min_quantity: Decimal = Decimal(0)
    min_value: Decimal = Decimal(0)
    shorts: bool = True
    step: Decimal = Decimal(0)

    def min_order(self, price: Decimal | None) -> Decimal:
        """Return the least quantity of an order at `price`: in whole steps, for what is over is not sent."""
        if price is None or price <= 0:
            return self.min_quantity
        with localcontext(ARITHMETIC):
            least = self.min_value / price
            if self.step:
                least = (least / self.step).to_integral_value(ROUND_CEILING) * self.step
            return max(self.min_quantity, to_scale(least, ROUND_CEILING))

    def min_exit(self, price: Decimal | None) -> Decimal:
        """Return the least quantity that can be got rid of at `price`: what is less is dust."""
        return self.min_quantity if self.shorts else self.min_order(price)


class ExchangeError(Exception):
    """Base of what an exchange can do to us; the message holds no credential."""


class RejectedError(ExchangeError):
    """The exchange refuses the order for good: funds, filters, permissions, unknown symbol."""


class UnknownSymbolError(RejectedError):
    """The account's exchange has no such market."""


class NotSentError(ExchangeError):
    """The exchange certainly did not get the request (refused connection, rate limit): try again later."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutcomeUnknownError(ExchangeError):
    """The request may have been carried out: time-out, connection lost, 5xx."""


class CredentialsError(ExchangeError):
    """The exchange does not accept the key, or the key may do what no key of ours may: withdraw."""


class Exchange(Protocol):
    """One account at one exchange. Every call is bounded in time (EXCHANGE_TIMEOUT)."""

    # Seconds after which an order that we sent, and that the exchange does not know, cannot arrive any more.
    settle_time: float

    async def place(self, order: OrderRequest) -> OrderReport:
        """Sends the order, once.

        Raises:
            RejectedError, NotSentError, OutcomeUnknownError, CredentialsError.
        """

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Gives the order; None if the exchange says that it has none of this id.

        Raises:
            NotSentError: it did not answer, or not with that; ask again.
            CredentialsError: it does not accept the key.
        """

    async def cancel(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Cancels what is left of the order, and gives where it stands; None if the exchange has none.

        Raises:
            NotSentError: it did not answer, or not with that; cancelling again does no harm.
            CredentialsError: it does not accept the key.
        """

    async def holding(self, symbol: str) -> Decimal | None:
        """Gives the signed quantity that the account holds of the symbol; None where nobody can say."""

    async def asset(self, symbol: str) -> str:
        """Return what `holding` of the symbol is counted in: the base asset on spot, else the market.

        Raises:
            UnknownSymbolError: there is no such market.
            NotSentError, CredentialsError: as for `find`.
        """

    async def price(self, symbol: str) -> Decimal | None:
        """Gives the last price of the symbol; None where nobody can say."""

    async def equity(self, symbol: str) -> Decimal | None:
        """Gives the account's equity in the quote asset of the symbol; None where nobody can say."""

    async def limits(self, symbol: str) -> MarketLimits:
        """Return what the symbol's market takes.

        Raises:
            UnknownSymbolError: there is no such market.
            NotSentError, CredentialsError: as for `find`.
        """

    async def check_credentials(self) -> None:
        """Looks at what the key may do.

        Raises:
            CredentialsError: the key is not accepted, or may withdraw.
            NotSentError: the exchange did not answer.
        """

    async def close(self) -> None:
        """Closes connections."""
