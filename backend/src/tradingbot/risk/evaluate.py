"""May this order be made? A pure function over everything that the answer depends on.

The rules, in the order in which they are asked; the first that says no is the one that is stored:

1. `strategy_off`: the strategy is switched off.
2. `halted`: a kill switch is on, for everybody, the user or the strategy.
3. `symbol`: the strategy names its symbols, and this is not one of them.
4. `no_price`: there is no positive price.
5. `max_order_value`: quantity times price is above the strategy's limit.
6. `max_position`: the position would be larger (long or short) than the strategy's limit.
7. `max_daily_loss`: the strategy has lost its limit or more since 00:00 UTC: realised P&L and fees of the
   day's fills, and the unrealised P&L of all that it holds now, of whatever day. A profit today makes room.
8. `max_orders_per_minute`: as many orders as the limit were made in the last 60 seconds.

An order that only reduces a position is stopped by rule 1 alone: whatever halts and limits say, an exit gets
out. An order that flips a position through zero does not only reduce it; what of it closes the position is
made all the same. The limits of the tables apply to every order: no value or position is taken that later
sums could not hold (`LARGEST`).
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext

from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.risk.models import Rule
from tradingbot.strategies.symbols import allows

# What these rules say of a signal is said of what it opens, never of what it closes.
ENTRY_RULES = frozenset(Rule) - {Rule.STRATEGY_OFF, Rule.LIVE_FORBIDDEN}

# Columns hold less than 1e20; the rest is room for sums of many orders.
LARGEST = Decimal(10) ** 15
_LONGEST_REASON = 500


@dataclass(frozen=True)
class RefusalReason:
    """Which rule said no, and why, with the numbers that it compared."""

    rule: Rule
    reason: str


@dataclass(frozen=True)
class RiskInput:
    """What the rules look at. Quantities are in the base asset, money is in the quote asset; null: no limit.

    `change` is the order's signed quantity, None to ask rules 1 and 2 alone. `position` is what the strategy
    holds of the symbol and what its open orders will still add.
    """

    symbol: str
    change: Decimal | None
    price: Decimal | None
    position: Decimal = Decimal(0)
    # Which kill switch is on, in words.
    halt: str | None = None
    strategy_active: bool = True
    # Empty: any.
    symbols: tuple[str, ...] = ()
    max_position: Decimal | None = None
    max_order_value: Decimal | None = None
    max_daily_loss: Decimal | None = None
    max_orders_per_minute: int | None = None
    # Since 00:00 UTC, before fees.
    realised_today: Decimal = Decimal(0)
    fees_today: Decimal = Decimal(0)
    # Of everything that the strategy holds, at the last known prices.
    unrealised: Decimal = Decimal(0)
    orders_last_minute: int = 0


def evaluate(given: RiskInput) -> RefusalReason | None:
    """Gives the first rule that refuses the order, None if all let it pass."""
    with localcontext(ARITHMETIC):
        if given.change is None:
            return _switched_off(given) or _halted(given)
        after = given.position + given.change
        if _only_reduces(given.position, given.change):
            return _switched_off(given) or _bookable(given, given.change, after)
        return (
            _switched_off(given)
            or _halted(given)
            or _bookable(given, given.change, after)
            or _tradable(given)
            or _size(given, given.change, after)
            or _pace(given)
        )


def _only_reduces(position: Decimal, change: Decimal) -> bool:
    return position != 0 and (position > 0) != (change > 0) and abs(change) <= abs(position)


def _halted(given: RiskInput) -> RefusalReason | None:
    if given.halt is None:
        return None
    return RefusalReason(Rule.HALTED, given.halt[:_LONGEST_REASON])


def _switched_off(given: RiskInput) -> RefusalReason | None:
    if not given.strategy_active:
        return RefusalReason(Rule.STRATEGY_OFF, "the strategy is switched off")
    return None


def _bookable(given: RiskInput, change: Decimal, after: Decimal) -> RefusalReason | None:
    largest = plain(LARGEST)
    if max(abs(change), abs(after)) > LARGEST:
        return RefusalReason(
            Rule.MAX_POSITION, f"position would be {plain(after)} {given.symbol}, at most {largest} is kept"
        )
    if given.price is not None and abs(change) * given.price > LARGEST:
        value = plain(abs(change) * given.price)
        return RefusalReason(Rule.MAX_ORDER_VALUE, f"order value would be {value}, at most {largest} is kept")
    return None


def _tradable(given: RiskInput) -> RefusalReason | None:
    if not allows(given.symbols, given.symbol):
        return RefusalReason(Rule.SYMBOL, f"{given.symbol} is not one of the strategy's symbols")
    if given.price is None:
        return RefusalReason(Rule.NO_PRICE, f"no price of {given.symbol} is known")
    if given.price <= 0:
        return RefusalReason(Rule.NO_PRICE, f"the price {plain(given.price)} is not positive")
    return None


def _size(given: RiskInput, change: Decimal, after: Decimal) -> RefusalReason | None:
    value = abs(change) * (given.price or Decimal(0))
    if given.max_order_value is not None and value > given.max_order_value:
        return RefusalReason(
            Rule.MAX_ORDER_VALUE,
            f"order value would be {plain(value)}, limit {plain(given.max_order_value)}",
        )
    if given.max_position is not None and abs(after) > given.max_position:
        return RefusalReason(
            Rule.MAX_POSITION,
            f"position would be {plain(after)} {given.symbol}, limit {plain(given.max_position)}",
        )
    return None


def _pace(given: RiskInput) -> RefusalReason | None:
    loss = given.fees_today - given.realised_today - given.unrealised
    if given.max_daily_loss is not None and loss > 0 and loss >= given.max_daily_loss:
        return RefusalReason(
            Rule.MAX_DAILY_LOSS, f"loss today is {plain(loss)}, limit {plain(given.max_daily_loss)}"
        )
    limit = given.max_orders_per_minute
    if limit is not None and given.orders_last_minute >= limit:
        return RefusalReason(
            Rule.MAX_ORDERS_PER_MINUTE,
            f"{given.orders_last_minute} orders in the last 60 seconds, limit {limit}",
        )
    return None
