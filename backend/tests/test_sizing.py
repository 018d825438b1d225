"""From a signal to the order that it asks for."""

from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.orders.models import Side
from tradingbot.positions.accounting import signed
from tradingbot.risk.evaluate import RefusalReason
from tradingbot.risk.models import Rule
from tradingbot.risk.sizing import OrderIntent, desired_order, order_towards
from tradingbot.signals.models import Action, MarketPosition, Signal
from tradingbot.strategies.models import Sizing, Strategy

D = Decimal
ALERT = Strategy(sizing=Sizing.ALERT)
AMOUNTS = st.decimals("0.000000000000000001", "99999999999999999999", places=18)
HELD = st.one_of(st.just(D(0)), AMOUNTS, AMOUNTS.map(ARITHMETIC.minus))
PRICES = st.decimals("0.00000001", "10000000", places=8)
DIRECTIONS = st.sampled_from([MarketPosition.LONG, MarketPosition.SHORT])


def sized(sizing: Sizing, value: str | Decimal) -> Strategy:
    return Strategy(sizing=sizing, sizing_value=D(value))


def alert(**values: Any) -> Signal:
    amounts = {
        name: None if values.get(name) is None else D(values[name]) for name in ("quantity", "position_size")
    }
    return Signal(symbol="BTCUSDT", **(values | amounts))


def order_of(
    strategy: Strategy,
    signal: Signal,
    held: str | Decimal = "0",
    price: str | Decimal | None = "100",
    equity: str | Decimal | None = "10000",
    costs: str | Decimal = "0",
) -> OrderIntent | RefusalReason | None:
    return desired_order(
        strategy,
        signal,
        D(held),
        None if price is None else D(price),
        None if equity is None else D(equity),
        costs=D(costs),
    )


def after(held: Decimal, intent: OrderIntent | RefusalReason | None) -> Decimal:
    """What is held once the order is filled."""
    assert not isinstance(intent, RefusalReason)
    return held if intent is None else ARITHMETIC.add(held, signed(intent.side, intent.quantity))


FIXED = sized(Sizing.FIXED_QUANTITY, "0.5")
QUOTE = sized(Sizing.FIXED_QUOTE, "1000")
PERCENT = sized(Sizing.EQUITY_PERCENT, "25")


@pytest.mark.parametrize(
    ("strategy", "signal", "held", "expected"),
    [
        # Plain orders, whatever is held.
        (ALERT, alert(action="buy", quantity="2"), "0", "2"),
        (ALERT, alert(action="sell", quantity="2"), "0", "-2"),
        (ALERT, alert(action="buy", quantity="2"), "3", "2"),
        (ALERT, alert(action="sell", quantity="2"), "3", "-2"),
        (FIXED, alert(action="buy", quantity="2"), "0", "0.5"),
        (QUOTE, alert(action="sell"), "0", "-10"),
        (PERCENT, alert(action="buy"), "1", "25"),
        # Close what is open.
        (ALERT, alert(action="close"), "3", "-3"),
        (FIXED, alert(action="close"), "-0.1", "0.1"),
        (QUOTE, alert(action="close", quantity="1"), "0", None),
        # Targets: the difference between what is held and what should be.
        (ALERT, alert(market_position="long", position_size="2"), "0", "2"),
        (ALERT, alert(market_position="long", position_size="2"), "2", None),
        (ALERT, alert(market_position="long", position_size="2"), "3", "-1"),
        (ALERT, alert(market_position="long", position_size="2"), "-1", "3"),
        (ALERT, alert(market_position="short", position_size="2"), "0", "-2"),
        (ALERT, alert(market_position="short", position_size="-2"), "0", "-2"),
        (ALERT, alert(market_position="short", position_size="2"), "1", "-3"),
        (FIXED, alert(market_position="long", position_size="7"), "0", "0.5"),
        (FIXED, alert(market_position="short"), "0.5", "-1"),
        (FIXED, alert(market_position="long"), "0.2", "0.3"),
        (FIXED, alert(market_position="long"), "0.5", None),
        (QUOTE, alert(market_position="long"), "-4", "14"),
        (PERCENT, alert(market_position="short"), "0", "-25"),
        # A size that moves with the price or the equity is not followed.
        (QUOTE, alert(market_position="long"), "9.99", None),
        (PERCENT, alert(market_position="short"), "-1", None),
        # Flat is flat, whatever else the alert says.
        (ALERT, alert(market_position="flat", position_size="5"), "3", "-3"),
        (QUOTE, alert(market_position="flat"), "-3", "3"),
        (PERCENT, alert(market_position="flat"), "0", None),
        # The target wins over the action: of an exit, of a reversal, of an entry that was missed.
        (ALERT, alert(action="sell", quantity="2", market_position="flat", position_size="0"), "2", "-2"),
        (ALERT, alert(action="buy", quantity="2", market_position="long", position_size="1"), "-1", "2"),
        (ALERT, alert(action="sell", quantity="1", market_position="long", position_size="1"), "0", "1"),
        (ALERT, alert(action="close", market_position="long", position_size="1"), "1", None),
    ],
)
def test_orders(strategy: Strategy, signal: Signal, held: str, expected: str | None) -> None:
    intent = order_of(strategy, signal, held)
    assert not isinstance(intent, RefusalReason)
    assert (intent and signed(intent.side, intent.quantity)) == (expected and D(expected))


@pytest.mark.parametrize(
    ("held", "target", "reduces"),
    [
        ("2", "1", True),
        ("2", "0", True),
        ("-2", "-1", True),
        ("2", "-0.1", False),
        ("2", "3", False),
        ("-2", "-3", False),
        ("0", "1", False),
        ("0", "-1", False),
    ],
)
def test_which_orders_only_reduce(held: str, target: str, reduces: bool) -> None:
    intent = order_towards(D(target), D(held))
    assert intent is not None
    assert intent.reduce_only is reduces


@pytest.mark.parametrize(
    ("strategy", "signal", "price", "equity", "rule", "words"),
    [
        (ALERT, alert(action="buy"), "1", "1", Rule.NO_QUANTITY, "needs quantity in the alert"),
        (
            ALERT,
            alert(action="buy", quantity="0"),
            "1",
            "1",
            Rule.NO_QUANTITY,
            "quantity in the alert is not",
        ),
        (ALERT, alert(action="sell", quantity="-1"), "1", "1", Rule.NO_QUANTITY, "not positive"),
        (ALERT, alert(market_position="long"), "1", "1", Rule.NO_QUANTITY, "needs position_size"),
        (
            ALERT,
            alert(action="buy", quantity="1", market_position="long"),
            "1",
            "1",
            Rule.NO_QUANTITY,
            "needs position_size",
        ),
        (ALERT, alert(market_position="long", position_size="0"), "1", "1", Rule.NO_QUANTITY, "not positive"),
        (
            ALERT,
            alert(market_position="short", position_size="0"),
            "1",
            "1",
            Rule.NO_QUANTITY,
            "not positive",
        ),
        (
            ALERT,
            alert(market_position="long", position_size="-1"),
            "1",
            "1",
            Rule.NO_QUANTITY,
            "not positive",
        ),
        (Strategy(sizing=Sizing.FIXED_QUOTE), alert(action="buy"), "1", "1", Rule.NO_QUANTITY, "no value"),
        (QUOTE, alert(action="buy"), None, "1", Rule.NO_PRICE, "there is none"),
        (QUOTE, alert(action="buy"), "0", "1", Rule.NO_PRICE, "there is none"),
        (PERCENT, alert(market_position="long"), "-1", "1", Rule.NO_PRICE, "there is none"),
        (
            PERCENT,
            alert(action="buy"),
            "1",
            None,
            Rule.NO_QUANTITY,
            "equity in the symbol's quote asset is not known",
        ),
        (PERCENT, alert(action="buy"), "1", "-5", Rule.NO_QUANTITY, "not known or not positive"),
        (
            sized(Sizing.FIXED_QUOTE, "0.000000000000000001"),
            alert(action="buy"),
            "3",
            "1",
            Rule.NO_QUANTITY,
            "too small at this price",
        ),
    ],
)
def test_what_cannot_be_sized(
    strategy: Strategy, signal: Signal, price: str | None, equity: str | None, rule: Rule, words: str
) -> None:
    refusal = order_of(strategy, signal, "0", price, equity)
    assert isinstance(refusal, RefusalReason)
    assert refusal.rule == rule
    assert words in refusal.reason


def test_getting_out_needs_neither_price_nor_equity() -> None:
    for signal in (alert(action="close"), alert(market_position="flat")):
        assert order_of(PERCENT, signal, "2", None, None) == OrderIntent(Side.SELL, D(2), reduce_only=True)


def test_an_order_by_value_is_never_worth_more() -> None:
    intent = order_of(sized(Sizing.FIXED_QUOTE, "2"), alert(action="buy"), "0", "3")
    assert intent == OrderIntent(Side.BUY, D("0.666666666666666666"), reduce_only=False)


ALL = sized(Sizing.EQUITY_PERCENT, "100")


@pytest.mark.parametrize(
    ("strategy", "held", "expected"),
    [
        # At 80 and a quarter of that they are 100 each.
        (ALL, "0", "100"),
        (PERCENT, "0", "25"),
        # Closing 50 at 80 costs 1000: 9000 are left, or 90 of them.
        (ALL, "-50", "140"),
        (PERCENT, "-50", "72.5"),
        # Other sizes are what was asked for.
        (QUOTE, "0", "12.5"),
        (FIXED, "0", "0.5"),
    ],
)
def test_a_share_of_the_equity_pays_for_the_costs_too(strategy: Strategy, held: str, expected: str) -> None:
    intent = order_of(strategy, alert(market_position="long"), held, "80", costs="0.25")
    assert intent == OrderIntent(Side.BUY, D(expected), reduce_only=False)


@given(HELD, PRICES, AMOUNTS, st.decimals("0", "0.9", places=6), DIRECTIONS)
def test_all_of_the_equity_is_never_exceeded(
    held: Decimal, price: Decimal, equity: Decimal, costs: Decimal, direction: MarketPosition
) -> None:
    intent = order_of(ALL, Signal(symbol="X", market_position=direction), held, price, equity, costs)
    if isinstance(intent, OrderIntent):
        with localcontext(ARITHMETIC):
            reached = abs(after(held, intent))
            assert reached * price + intent.quantity * price * costs <= equity


@given(HELD, AMOUNTS, DIRECTIONS, st.booleans())
def test_a_target_is_reached_whatever_was_held_and_asked_again_nothing_is_done(
    held: Decimal, size: Decimal, direction: MarketPosition, fixed: bool
) -> None:
    strategy = sized(Sizing.FIXED_QUANTITY, size) if fixed else ALERT
    signal = Signal(symbol="X", market_position=direction, position_size=None if fixed else size)
    reached = after(held, order_of(strategy, signal, held))
    assert reached == (size if direction == MarketPosition.LONG else ARITHMETIC.minus(size))
    assert order_of(strategy, signal, reached) is None


@given(
    HELD, PRICES, PRICES, AMOUNTS, DIRECTIONS, st.sampled_from([Sizing.FIXED_QUOTE, Sizing.EQUITY_PERCENT])
)
def test_a_target_by_value_is_entered_once_at_whatever_price_it_is_repeated(
    held: Decimal,
    price: Decimal,
    later: Decimal,
    value: Decimal,
    direction: MarketPosition,
    sizing: Sizing,
) -> None:
    strategy, signal = sized(sizing, value), Signal(symbol="X", market_position=direction)
    intent = order_of(strategy, signal, held, price, "5000")
    if isinstance(intent, RefusalReason):
        assert intent.rule == Rule.NO_QUANTITY
        return
    reached = after(held, intent)
    assert (reached > 0) == (direction == MarketPosition.LONG)
    assert order_of(strategy, signal, reached, later, "6000") is None
    if intent is not None:
        with localcontext(ARITHMETIC):
            worth = value if sizing == Sizing.FIXED_QUOTE else 5000 * value / 100
            assert 0 <= worth - abs(reached) * price < price * D("1e-18")


@given(HELD, st.sampled_from([alert(action="close"), alert(market_position="flat")]))
def test_closing_leaves_exactly_nothing(held: Decimal, signal: Signal) -> None:
    intent = order_of(ALERT, signal, held, None, None)
    assert not isinstance(intent, RefusalReason)
    assert after(held, intent) == 0
    assert intent is None or intent.reduce_only
    assert order_of(ALERT, signal, D(0)) is None


@given(st.lists(st.tuples(DIRECTIONS, st.integers(1, 5)), min_size=1), st.data())
def test_missed_and_repeated_targets_heal(
    targets: list[tuple[MarketPosition, int]], data: st.DataObject
) -> None:
    held = D(0)
    signals = [Signal(symbol="X", market_position=way, position_size=D(size)) for way, size in targets]
    for signal in signals[:-1]:
        for _ in range(data.draw(st.integers(0, 2))):
            held = after(held, order_of(ALERT, signal, held))
    held = after(held, order_of(ALERT, signals[-1], held))
    way, size = targets[-1]
    assert held == (size if way == MarketPosition.LONG else -size)


@given(HELD, AMOUNTS, st.sampled_from([Action.BUY, Action.SELL]))
def test_plain_orders_are_of_the_quantity_asked_for(held: Decimal, quantity: Decimal, action: Action) -> None:
    intent = order_of(ALERT, Signal(symbol="X", action=action, quantity=quantity), held)
    assert isinstance(intent, OrderIntent)
    assert (intent.side, intent.quantity) == (Side(action), quantity)
