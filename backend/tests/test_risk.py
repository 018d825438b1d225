"""The rules that every order passes: what each refuses and lets pass, in their order."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.risk.evaluate import LARGEST, RefusalReason, RiskInput, evaluate
from tradingbot.risk.models import Rule

D = Decimal
BUY = RiskInput(symbol="BTCUSDT", change=D(1), price=D(100))
# Long 2, with every limit exceeded.
BROKEN = RiskInput(
    symbol="BTCUSDT",
    change=D(-1),
    price=D(100),
    position=D(2),
    symbols=("ETHUSDT",),
    max_position=D("0.1"),
    max_order_value=D(1),
    max_daily_loss=D(1),
    max_orders_per_minute=1,
    realised_today=D(-100),
    orders_last_minute=5,
)
AMOUNTS = st.decimals("0.000000000000000001", "100000000", places=18)
SIGNED = st.one_of(AMOUNTS, AMOUNTS.map(ARITHMETIC.minus))


def test_without_limits_everything_passes() -> None:
    assert evaluate(BUY) is None
    assert evaluate(replace(BUY, change=D(-1))) is None


@pytest.mark.parametrize(
    ("changes", "rule", "reason"),
    [
        ({"halt": "all of your trading is halted"}, Rule.HALTED, "all of your trading is halted"),
        ({"strategy_active": False}, Rule.STRATEGY_OFF, "the strategy is switched off"),
        ({"symbols": ("ETHUSDT",)}, Rule.SYMBOL, "BTCUSDT is not one of the strategy's symbols"),
        ({"price": None}, Rule.NO_PRICE, "no price of BTCUSDT is known"),
        ({"price": D("-0.50")}, Rule.NO_PRICE, "the price -0.5 is not positive"),
        ({"price": D(0)}, Rule.NO_PRICE, "the price 0 is not positive"),
        (
            {"change": D("1.5"), "max_order_value": D("149.99")},
            Rule.MAX_ORDER_VALUE,
            "order value would be 150, limit 149.99",
        ),
        (
            {"position": D("0.20"), "max_position": D(1)},
            Rule.MAX_POSITION,
            "position would be 1.2 BTCUSDT, limit 1",
        ),
        (
            {"position": D("-0.2"), "change": D(-1), "max_position": D(1)},
            Rule.MAX_POSITION,
            "position would be -1.2 BTCUSDT, limit 1",
        ),
        (
            {"position": D(1), "change": D(-3), "max_position": D(1)},
            Rule.MAX_POSITION,
            "position would be -2 BTCUSDT, limit 1",
        ),
        (
            {"max_daily_loss": D(50), "realised_today": D(-30), "fees_today": D(5), "unrealised": D(-15)},
            Rule.MAX_DAILY_LOSS,
            "loss today is 50, limit 50",
        ),
        (
            {"max_daily_loss": D(50), "realised_today": D(100), "unrealised": D("-150.5")},
            Rule.MAX_DAILY_LOSS,
            "loss today is 50.5, limit 50",
        ),
        (
            {"max_orders_per_minute": 3, "orders_last_minute": 3},
            Rule.MAX_ORDERS_PER_MINUTE,
            "3 orders in the last 60 seconds, limit 3",
        ),
        (
            {"max_orders_per_minute": 0},
            Rule.MAX_ORDERS_PER_MINUTE,
            "0 orders in the last 60 seconds, limit 0",
        ),
        (
            {"change": LARGEST, "position": D("0.5"), "price": D("0.000001")},
            Rule.MAX_POSITION,
            "position would be 1000000000000000.5 BTCUSDT, at most 1000000000000000 is kept",
        ),
        (
            {"change": D(20), "price": D(10) ** 14},
            Rule.MAX_ORDER_VALUE,
            "order value would be 2000000000000000, at most 1000000000000000 is kept",
        ),
    ],
)
def test_what_each_rule_refuses(changes: dict[str, Any], rule: Rule, reason: str) -> None:
    assert evaluate(replace(BUY, **changes)) == RefusalReason(rule, reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"symbols": ("ETHUSDT", "btcusdt")},
        {"max_order_value": D(100)},
        {"max_position": D(1)},
        {"position": D("-1.5"), "max_position": D("0.5")},
        {"max_daily_loss": D(50), "realised_today": D("-49.99")},
        {"max_daily_loss": D(50), "realised_today": D(-100), "unrealised": D(60)},
        {"max_daily_loss": D(0)},
        {"max_daily_loss": D(0), "unrealised": D(1)},
        {"max_orders_per_minute": 3, "orders_last_minute": 2},
    ],
)
def test_what_is_just_within_a_limit_passes(changes: dict[str, Any]) -> None:
    assert evaluate(replace(BUY, **changes)) is None


def test_getting_out_passes_every_limit() -> None:
    assert evaluate(BROKEN) is None
    assert evaluate(replace(BROKEN, change=D(-2))) is None
    assert evaluate(replace(BROKEN, position=D(-2), change=D(2))) is None
    assert evaluate(replace(BROKEN, price=None)) is None


def test_going_through_zero_is_not_getting_out() -> None:
    assert evaluate(replace(BROKEN, change=D("-2.000000000000000001"))) is not None
    assert evaluate(replace(BROKEN, position=D(0))) is not None


@pytest.mark.parametrize(
    ("changes", "rule"),
    [({"halt": "halted"}, Rule.HALTED), ({"strategy_active": False}, Rule.STRATEGY_OFF)],
)
def test_switches_need_no_order_to_be_asked(changes: dict[str, Any], rule: Rule) -> None:
    refusal = evaluate(replace(BROKEN, change=None, **changes))
    assert refusal is not None
    assert refusal.rule == rule
    assert evaluate(replace(BROKEN, change=None)) is None


def test_a_halt_lets_out_and_a_strategy_that_is_switched_off_does_not() -> None:
    assert evaluate(replace(BROKEN, change=D(-1), halt="halted")) is None
    refusal = evaluate(replace(BROKEN, change=D(-1), strategy_active=False))
    assert refusal is not None
    assert refusal.rule == Rule.STRATEGY_OFF


def test_rules_are_asked_in_the_documented_order() -> None:
    """Each rule that is satisfied uncovers the next one."""
    given_ = replace(BROKEN, position=D(0), change=D(1), price=None, halt="halted", strategy_active=False)
    order = []
    for cure in (
        {"strategy_active": True},
        {"halt": None},
        {"symbols": ()},
        {"price": D(100)},
        {"max_order_value": None},
        {"max_position": None},
        {"realised_today": D(0)},
        {"orders_last_minute": 0},
    ):
        refusal = evaluate(given_)
        assert refusal is not None
        order.append(refusal.rule)
        given_ = replace(given_, **cure)
    assert evaluate(given_) is None
    assert order == [
        Rule.STRATEGY_OFF,
        Rule.HALTED,
        Rule.SYMBOL,
        Rule.NO_PRICE,
        Rule.MAX_ORDER_VALUE,
        Rule.MAX_POSITION,
        Rule.MAX_DAILY_LOSS,
        Rule.MAX_ORDERS_PER_MINUTE,
    ]


@given(st.one_of(st.just(D(0)), SIGNED), SIGNED, AMOUNTS)
def test_no_order_that_passes_makes_the_position_larger_than_the_limit(
    position: Decimal, change: Decimal, limit: Decimal
) -> None:
    refusal = evaluate(replace(BUY, position=position, change=change, max_position=limit))
    after = ARITHMETIC.abs(ARITHMETIC.add(position, change))
    if refusal is None:
        assert after <= max(limit, ARITHMETIC.abs(position))
    else:
        assert refusal.rule == Rule.MAX_POSITION
        assert after > limit


@given(SIGNED, st.decimals("0.000001", "1", places=6))
def test_any_part_of_a_position_can_be_closed_under_any_limit(position: Decimal, share: Decimal) -> None:
    change = ARITHMETIC.minus(ARITHMETIC.multiply(position, share))
    assert evaluate(replace(BROKEN, position=position, change=change, price=D(1))) is None


def test_a_long_reason_of_a_halt_is_cut() -> None:
    refusal = evaluate(replace(BUY, halt="x" * 1000))
    assert refusal is not None
    assert len(refusal.reason) == 500
