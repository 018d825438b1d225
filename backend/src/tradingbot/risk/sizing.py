"""Which order does a signal ask for? Pure functions.

A target position (`market_position`) wins over `action`: the order is what is missing between the position
that is held (with what open orders will still add) and the target, so a repeated signal asks for nothing and
the next one makes good for a missed one.

| signal | target |
|---|---|
| `flat`, or `close` without a target | 0 |
| `long`/`short`, sizing `alert` | ± `position_size` |
| `long`/`short`, sizing `fixed_quantity` | ± `sizing_value` |
| `long`/`short`, other sizing | ± the sized quantity; a position of that direction is left as it is |

Sizes that depend on the price or the equity change from moment to moment: following them would trade a little
with every repeated signal, so an entry is sized once. To follow pyramiding and partial exits use `alert`.

A share of the equity pays for fee and slippage too, c of the value: with equity e, price p and h held the
other way, which is closed first, x per cent are a quantity of (e - |h| p c) x / 100 / (p (1 + c)).

What is less than the market's least order is dust, and counts as flat: there is no exit from it, and an entry
that is sized once is sized as if it were not there.

`buy` and `sell` without a target are plain orders of the sized quantity (`alert`: the alert's `quantity`),
whatever is held: there is nothing that a missed one could be healed by.
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal, localcontext

from tradingbot.core.amounts import ARITHMETIC, to_scale
from tradingbot.orders.models import Side
from tradingbot.risk.evaluate import RefusalReason
from tradingbot.risk.models import Rule
from tradingbot.signals.models import Action, MarketPosition, Signal
from tradingbot.strategies.models import Sizing, Strategy

_PRICED = (Sizing.FIXED_QUOTE, Sizing.EQUITY_PERCENT)


@dataclass(frozen=True)
class OrderIntent:
    """A market order to make: `quantity` in the base asset, positive.

    `reduce_only`: it brings the position nearer to zero and not beyond.
    """

    side: Side
    quantity: Decimal
    reduce_only: bool


def desired_order(
    strategy: Strategy,
    signal: Signal,
    position_quantity: Decimal,
    price: Decimal | None,
    equity: Decimal | None,
    dust: Decimal = Decimal(0),
    costs: Decimal = Decimal(0),
) -> OrderIntent | RefusalReason | None:
    """Gives the order that the signal asks for, None if there is nothing to do, or why it cannot be said.

    `position_quantity` is what is held and what open orders will still add; `equity` is in the quote asset.
    What is held and less than `dust` cannot be got rid of. `costs` are what an order costs besides its value,
    as a fraction of it.
    """
    if abs(position_quantity) < dust and (is_exit(signal) or _is_sized_once(strategy, signal)):
        position_quantity = Decimal(0)
    # The default context would round to 28 digits.
    with localcontext(ARITHMETIC):
        if signal.market_position is not None:
            return _towards_target(strategy, signal, position_quantity, price, equity, costs)
        if signal.action == Action.CLOSE:
            return order_towards(Decimal(0), position_quantity)
        quantity = _sized(strategy, signal.quantity, "quantity", price, equity, costs)
        if isinstance(quantity, RefusalReason):
            return quantity
        change = quantity if signal.action == Action.BUY else -quantity
        return order_towards(position_quantity + change, position_quantity)


def is_exit(signal: Signal) -> bool:
    """Return whether a signal can only bring the position to zero."""
    if signal.market_position is not None:
        return signal.market_position == MarketPosition.FLAT
    return signal.action == Action.CLOSE


def may_close(signal: Signal, held: Decimal) -> bool:
    """Return whether the signal may ask for less of what is held (signed) than there is."""
    if held == 0:
        return False
    return signal.market_position is not None or signal.action != (Action.BUY if held > 0 else Action.SELL)


def exit_of(signal: Signal, held: Decimal) -> OrderIntent | None:
    """Return what closes all that is held (signed) against the signal's target; None if there is nothing.

    It is certain also where the size of the target is not.
    """
    wrong = MarketPosition.SHORT if held > 0 else MarketPosition.LONG
    if not is_exit(signal) and signal.market_position != wrong:
        return None
    return order_towards(Decimal(0), held)


def closing_part(intent: OrderIntent, held: Decimal) -> OrderIntent | None:
    """Return what of the order closes what is held (signed), None if it closes nothing."""
    if held == 0 or (held > 0) != (intent.side == Side.SELL):
        return None
    return OrderIntent(intent.side, min(intent.quantity, abs(held)), reduce_only=True)


def without_short(intent: OrderIntent, held: Decimal) -> OrderIntent | None:
    """Return what of the order is left where less than nothing cannot be held: a sell sells what is held."""
    return intent if intent.side == Side.BUY else closing_part(intent, held)


def order_towards(target: Decimal, held: Decimal) -> OrderIntent | None:
    """Gives the order that makes `target` of the signed quantity `held`; None if it is that already."""
    with localcontext(ARITHMETIC):
        change = target - held
        if change == 0:
            return None
        reduces = held != 0 and (held > 0) != (change > 0) and abs(change) <= abs(held)
        return OrderIntent(Side.BUY if change > 0 else Side.SELL, abs(change), reduces)


def _towards_target(
    strategy: Strategy,
    signal: Signal,
    held: Decimal,
    price: Decimal | None,
    equity: Decimal | None,
    costs: Decimal,
) -> OrderIntent | RefusalReason | None:
    if signal.market_position == MarketPosition.FLAT:
        return order_towards(Decimal(0), held)
    is_long = signal.market_position == MarketPosition.LONG
    if _is_sized_once(strategy, signal) and held != 0 and (held > 0) == is_long:
        return None
    size = signal.position_size
    if size is not None and not is_long:
        # TradingView's `strategy.position_size` is negative when short, `strategy.market_position_size` not.
        size = abs(size)
    if equity is not None and price is not None:
        # Of an entry: what is held is of the other direction, or nothing.
        equity -= abs(held) * price * costs
    quantity = _sized(strategy, size, "position_size", price, equity, costs)
    if isinstance(quantity, RefusalReason):
        return quantity
    return order_towards(quantity if is_long else -quantity, held)


def _is_sized_once(strategy: Strategy, signal: Signal) -> bool:
    return signal.market_position is not None and strategy.sizing in _PRICED


def _sized(
    strategy: Strategy,
    given: Decimal | None,
    field: str,
    price: Decimal | None,
    equity: Decimal | None,
    costs: Decimal,
) -> Decimal | RefusalReason:
    if strategy.sizing == Sizing.ALERT:
        if given is None:
            return RefusalReason(Rule.NO_QUANTITY, f"the strategy needs {field} in the alert")
        if given <= 0:
            return RefusalReason(Rule.NO_QUANTITY, f"{field} in the alert is not positive")
        return given
    value = strategy.sizing_value
    if value is None or value <= 0:
        return RefusalReason(Rule.NO_QUANTITY, "the strategy's sizing has no value")
    if strategy.sizing == Sizing.FIXED_QUANTITY:
        return value
    if price is None or price <= 0:
        return RefusalReason(Rule.NO_PRICE, "the size depends on the price, and there is none")
    if strategy.sizing == Sizing.EQUITY_PERCENT:
        if equity is None or equity <= 0:
            return RefusalReason(
                Rule.NO_QUANTITY, "the equity in the symbol's quote asset is not known or not positive"
            )
        value = equity * value / 100 / (1 + costs)
    # Down, so that the order is never worth more than was asked for.
    quantity = to_scale(value / price, ROUND_DOWN)
    if quantity == 0:
        return RefusalReason(Rule.NO_QUANTITY, "the size is too small at this price")
    return quantity
