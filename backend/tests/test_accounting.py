"""Average-cost accounting: worked examples, and what must hold for any sequence of fills."""

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.core.amounts import ARITHMETIC, plain, to_scale
from tradingbot.orders.models import Side
from tradingbot.positions.accounting import (
    FillResult,
    PositionState,
    apply_fill,
    average_fill_price,
    signed,
    unrealised_pnl,
)

D = Decimal
HALF_UNIT = D("0.5e-18")


class AFill(NamedTuple):
    """One fill, with its fee."""

    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal


class Booked(NamedTuple):
    """The books after some fills, and by how much rounding may have moved the profit."""

    position: PositionState
    realised: Decimal
    fees: Decimal
    cash: Decimal
    tolerance: Decimal


QUANTITIES = st.decimals("0.000000000000000001", "1000000000", places=18)
PRICES = st.decimals("0", "10000000", places=18)
FEES = st.decimals("-1", "1000", places=18)
FILLS = st.builds(AFill, st.sampled_from(Side), QUANTITIES, PRICES, FEES)
# Whole lots, so that positions often come back to exactly zero.
LOTS = st.builds(AFill, st.sampled_from(Side), st.integers(1, 4).map(D), PRICES, FEES)
SEQUENCES = st.lists(st.one_of(FILLS, LOTS), max_size=30)
# Round numbers, whose averages need no rounding too often.
POSITIONS = st.builds(
    lambda quantity, price: (
        apply_fill(PositionState(), Side.BUY if quantity > 0 else Side.SELL, abs(quantity), price).position
    ),
    st.decimals("-1000", "1000", places=3).filter(bool),
    st.decimals("0.01", "100000", places=2),
)


def book(fills: Iterable[AFill], start: PositionState | None = None) -> Booked:
    """Books fills one after the other."""
    position, realised, fees, cash, tolerance = start or PositionState(), D(0), D(0), D(0), D(0)
    with localcontext(ARITHMETIC):
        for fill in fills:
            result = apply_fill(position, fill.side, fill.quantity, fill.price)
            # A rounded average is wrong by half a unit for each unit held, a rounded profit by half a unit.
            tolerance += HALF_UNIT * (1 + abs(position.quantity) + abs(result.position.quantity))
            position = result.position
            realised += result.realised_pnl
            fees += fill.fee
            cash -= signed(fill.side, fill.quantity) * fill.price + fill.fee
    return Booked(position, realised, fees, cash, tolerance)


@pytest.mark.parametrize(
    ("held", "average", "side", "quantity", "price", "after", "new_average", "realised"),
    [
        ("0", "0", Side.BUY, "2", "100", "2", "100", "0"),
        ("0", "0", Side.SELL, "2", "100", "-2", "100", "0"),
        # The example of Bybit's help centre: 0.5 at 5000 and 0.3 at 6000 are 0.8 at 5375.
        ("0.5", "5000", Side.BUY, "0.3", "6000", "0.8", "5375", "0"),
        ("-0.5", "5000", Side.SELL, "0.3", "6000", "-0.8", "5375", "0"),
        ("2", "100", Side.SELL, "0.5", "110", "1.5", "100", "5"),
        ("-2", "100", Side.BUY, "0.5", "110", "-1.5", "100", "-5"),
        ("2", "100", Side.SELL, "2", "90", "0", "0", "-20"),
        ("-2", "100", Side.BUY, "2", "90", "0", "0", "20"),
        ("2", "100", Side.SELL, "5", "110", "-3", "110", "20"),
        ("-2", "100", Side.BUY, "5", "110", "3", "110", "-20"),
        ("2", "100", Side.SELL, "1", "0", "1", "100", "-100"),
        ("1", "1", Side.BUY, "2", "2", "3", "1.666666666666666667", "0"),
    ],
)
def test_examples(
    held: str,
    average: str,
    side: Side,
    quantity: str,
    price: str,
    after: str,
    new_average: str,
    realised: str,
) -> None:
    result = apply_fill(PositionState(D(held), D(average)), side, D(quantity), D(price))
    assert result == FillResult(PositionState(D(after), D(new_average)), D(realised))


@pytest.mark.parametrize(("quantity", "price"), [("0", "1"), ("-1", "1"), ("1", "-0.01")])
def test_what_is_no_fill(quantity: str, price: str) -> None:
    with pytest.raises(ValueError, match="a fill has"):
        apply_fill(PositionState(), Side.BUY, D(quantity), D(price))


def test_amounts_of_all_38_digits_are_exact() -> None:
    large = D("12345678901234567890.123456789012345678")
    result = apply_fill(PositionState(large, D(1)), Side.SELL, D("0.000000000000000001"), D(2))
    assert result.position.quantity == D("12345678901234567890.123456789012345677")
    assert result.realised_pnl == D("0.000000000000000001")
    assert signed(Side.SELL, large) == D("-12345678901234567890.123456789012345678")


def test_zero_has_no_sign() -> None:
    assert plain(to_scale(D("-1e-30"))) == "0"
    assert plain(unrealised_pnl(PositionState(), D(5))) == "0"


@given(SEQUENCES, PRICES)
def test_profit_is_the_money_that_came_in_and_what_the_position_is_worth(
    fills: list[AFill], price: Decimal
) -> None:
    booked = book(fills)
    with localcontext(ARITHMETIC):
        profit = booked.realised + unrealised_pnl(booked.position, price) - booked.fees
        worth = booked.cash + booked.position.quantity * price
        assert abs(profit - worth) <= booked.tolerance + HALF_UNIT


@given(SEQUENCES)
def test_the_position_is_the_sum_of_the_fills(fills: list[AFill]) -> None:
    with localcontext(ARITHMETIC):
        assert book(fills).position.quantity == sum(
            (signed(fill.side, fill.quantity) for fill in fills), start=D(0)
        )


@given(SEQUENCES)
def test_nothing_held_has_no_average_and_all_is_realised(fills: list[AFill]) -> None:
    booked = book(fills)
    left = booked.position.quantity
    if left:
        side = Side.SELL if left > 0 else Side.BUY
        closing = AFill(side, ARITHMETIC.abs(left), D(7), D(0))
        booked = book([*fills, closing])
    assert booked.position == PositionState(D(0), D(0))
    assert str(booked.position.quantity) == "0"
    with localcontext(ARITHMETIC):
        assert abs(booked.realised - booked.fees - booked.cash) <= booked.tolerance


@given(SEQUENCES)
def test_long_and_short_mirror_each_other(fills: list[AFill]) -> None:
    mirrored = [fill._replace(side=Side.SELL if fill.side == Side.BUY else Side.BUY) for fill in fills]
    one, other = book(fills), book(mirrored)
    assert other.position.average_price == one.position.average_price
    assert other.position.quantity == ARITHMETIC.minus(one.position.quantity)
    assert other.realised == ARITHMETIC.minus(one.realised)


@given(POSITIONS, FILLS, st.lists(st.integers(1, 1000), min_size=1, max_size=5))
def test_a_fill_in_parts_is_the_fill(start: PositionState, fill: AFill, weights: Sequence[int]) -> None:
    with localcontext(ARITHMETIC):
        parts, left = [], fill.quantity
        for weight in weights:
            part = to_scale(left * weight / 1001)
            if 0 < part < left:
                parts.append(fill._replace(quantity=part, fee=D(0)))
                left -= part
        parts.append(fill._replace(quantity=left))
        whole, split = book([fill], start), book(parts, start)
        assert split.position.quantity == whole.position.quantity
        held = abs(whole.position.quantity) or D(1)
        drift = abs(split.position.average_price - whole.position.average_price)
        assert drift * held <= split.tolerance + whole.tolerance
        assert abs(split.realised - whole.realised) <= split.tolerance + whole.tolerance


@given(st.sampled_from(Side), st.lists(st.tuples(QUANTITIES, PRICES), min_size=1, max_size=20))
def test_the_average_is_between_the_prices(side: Side, fills: list[tuple[Decimal, Decimal]]) -> None:
    booked = book(AFill(side, quantity, price, D(0)) for quantity, price in fills)
    prices = [price for _, price in fills]
    assert min(prices) <= booked.position.average_price <= max(prices)
    assert booked.realised == 0


@given(POSITIONS, PRICES, st.integers(1, 1000))
def test_reducing_keeps_the_average_and_realises_the_share(
    start: PositionState, price: Decimal, share: int
) -> None:
    side = Side.SELL if start.quantity > 0 else Side.BUY
    with localcontext(ARITHMETIC):
        quantity = to_scale(abs(start.quantity) * share / 1001)
        result = apply_fill(start, side, quantity, price)
        assert result.position.average_price == start.average_price
        # What is realised and what is left to realise make what there was to realise.
        total = result.realised_pnl + unrealised_pnl(result.position, price)
        assert abs(total - unrealised_pnl(start, price)) <= 3 * HALF_UNIT


@given(POSITIONS, QUANTITIES, PRICES)
def test_a_flip_is_a_close_and_an_open(start: PositionState, beyond: Decimal, price: Decimal) -> None:
    side = Side.SELL if start.quantity > 0 else Side.BUY
    size = ARITHMETIC.abs(start.quantity)
    flip = apply_fill(start, side, ARITHMETIC.add(size, beyond), price)
    close = apply_fill(start, side, size, price)
    opened = apply_fill(close.position, side, beyond, price)
    assert flip == FillResult(opened.position, close.realised_pnl)


@given(st.lists(st.tuples(QUANTITIES, PRICES), min_size=1, max_size=20))
def test_an_orders_average_is_that_of_a_position_opened_by_it(fills: list[tuple[Decimal, Decimal]]) -> None:
    filled, average, position = D(0), D(0), PositionState()
    for quantity, price in fills:
        average = average_fill_price(filled, average, quantity, price)
        filled = ARITHMETIC.add(filled, quantity)
        position = apply_fill(position, Side.BUY, quantity, price).position
    assert PositionState(filled, average) == position
