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
) -> OrderIntent | RefusalReason | None:
    """Gives the order that the signal asks for, None if there is nothing to do, or why it cannot be said.

    `position_quantity` is what is held and what open orders will still add; `equity` is in the quote asset.
    """
    # The default context would round to 28 digits.
    with localcontext(ARITHMETIC):
        if signal.market_position is not None:
            return _towards_target(strategy, signal, position_quantity, price, equity)
        if signal.action == Action.CLOSE:
            return order_towards(Decimal(0), position_quantity)
        quantity = _sized(strategy, signal.quantity, "quantity", price, equity)
        if isinstance(quantity, RefusalReason):
            return quantity
        change = quantity if signal.action == Action.BUY else -quantity
        return order_towards(position_quantity + change, position_quantity)


def order_towards(target: Decimal, held: Decimal) -> OrderIntent | None:
    """Gives the order that makes `target` of the signed quantity `held`; None if it is that already."""
    with localcontext(ARITHMETIC):
        change = target - held
        if change == 0:
            return None
        reduces = held != 0 and (held > 0) != (change > 0) and abs(change) <= abs(held)
        return OrderIntent(Side.BUY if change > 0 else Side.SELL, abs(change), reduces)


def _towards_target(
    strategy: Strategy, signal: Signal, held: Decimal, price: Decimal | None, equity: Decimal | None
) -> OrderIntent | RefusalReason | None:
    if signal.market_position == MarketPosition.FLAT:
        return order_towards(Decimal(0), held)
    is_long = signal.market_position == MarketPosition.LONG
    if strategy.sizing in _PRICED and held != 0 and (held > 0) == is_long:
        return None
    size = signal.position_size
    if size is not None and not is_long:
        # TradingView's `strategy.position_size` is negative when short, `strategy.market_position_size` not.
        size = abs(size)
    quantity = _sized(strategy, size, "position_size", price, equity)
    if isinstance(quantity, RefusalReason):
        return quantity
    return order_towards(quantity if is_long else -quantity, held)


def _sized(
    strategy: Strategy, given: Decimal | None, field: str, price: Decimal | None, equity: Decimal | None
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
        value = equity * value / 100
    # Down, so that the order is never worth more than was asked for.
    quantity = to_scale(value / price, ROUND_DOWN)
    if quantity == 0:
        return RefusalReason(Rule.NO_QUANTITY, "the size is too small at this price")
    return quantity
