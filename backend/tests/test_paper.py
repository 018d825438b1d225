"""The paper exchange: prices, fees, and what its account is worth."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as given_by

from tests.conftest import ENCRYPTION_KEY
from tests.desk import Desk, open_desk
from tests.stub_exchange import Fault, StubExchange
from tradingbot.core.amounts import SCALE
from tradingbot.core.crypto import Envelopes
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import Exchange, NotSentError, OrderRequest, RejectedError
from tradingbot.exchanges.factory import open_exchange
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.exchanges.paper import fee, fill_price
from tradingbot.orders.models import OrderState, Side
from tradingbot.positions.models import Position

D = Decimal
UNIT = D(1).scaleb(-SCALE)
amounts = given_by.decimals(min_value=UNIT, max_value=10**12, places=SCALE)
rates = given_by.decimals(min_value=0, max_value=D("0.999999"), places=6)


def order(**changes: Any) -> OrderRequest:
    values = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": D(2), "price": D(100)}
    return OrderRequest("tbone", **{**values, **changes})


@given(price=amounts, rate=rates)
def test_slippage_is_against_the_order(price: Decimal, rate: Decimal) -> None:
    bought, sold = fill_price(price, Side.BUY, rate), fill_price(price, Side.SELL, rate)
    assert sold <= price <= bought
    assert abs((bought - price) - (price - sold)) <= UNIT
    assert abs((bought - price) - price * rate) <= UNIT


@given(price=amounts)
def test_without_slippage_the_price_is_the_alerts(price: Decimal) -> None:
    assert fill_price(price, Side.BUY, D(0)) == fill_price(price, Side.SELL, D(0)) == price


@given(quantity=amounts, price=amounts, rate=rates)
def test_the_fee_is_a_share_of_the_value_to_half_a_unit(
    quantity: Decimal, price: Decimal, rate: Decimal
) -> None:
    charged = fee(quantity, price, rate)
    numerator, denominator = (quantity.as_integer_ratio(), price.as_integer_ratio())
    (a, b), (c, d), (e, f) = numerator, denominator, rate.as_integer_ratio()
    (g, h), (i, j) = charged.as_integer_ratio(), UNIT.as_integer_ratio()
    # |charged - quantity price rate| <= UNIT / 2, in integers.
    assert abs(g * b * d * f - a * c * e * h) * 2 * j <= i * b * d * f * h
    assert charged.as_tuple().exponent == -SCALE


def test_halves_are_rounded_to_even() -> None:
    assert fee(D(1), UNIT, D("0.5")) == 0
    assert fee(D(3), UNIT, D("0.5")) == 2 * UNIT


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as opened:
        yield opened


async def open_account(desk: Desk, settings: Settings, **columns: Any) -> Exchange:
    """Makes a paper account and opens it."""
    account_id = await desk.account(**{"exchange": "paper", "mode": Mode.PAPER, **columns})
    return await reopen(desk, settings, account_id)


async def reopen(desk: Desk, settings: Settings, account_id: UUID) -> Exchange:
    (account,) = await desk.all(ExchangeAccount, ExchangeAccount.id == account_id)
    return open_exchange(account, settings, Envelopes(ENCRYPTION_KEY), desk.database)


async def put_position(desk: Desk, strategy_id: UUID, **columns: Any) -> None:
    async with desk.database.transaction() as session:
        session.add(Position(user_id=desk.user_id, strategy_id=strategy_id, **columns))


async def test_an_order_is_filled_at_the_alerts_price(desk: Desk, settings: Settings) -> None:
    exchange = await open_account(desk, settings, fee_rate=D("0.001"), slippage_rate=D("0.01"))
    report = await exchange.place(order())
    (trade,) = report.trades
    assert report.state == OrderState.FILLED
    assert (trade.quantity, trade.price, trade.fee) == (D(2), D(101), D("0.202"))
    (sold,) = (await exchange.place(order(side=Side.SELL))).trades
    assert (sold.price, sold.fee) == (D(99), D("0.198"))
    assert exchange.settle_time == 0


async def test_placing_again_gives_the_same_trade(desk: Desk, settings: Settings) -> None:
    exchange = await open_account(desk, settings)
    first, second = [await exchange.place(order()) for _ in range(2)]
    assert first.trades[0].trade_id == second.trades[0].trade_id == "tbone"
    assert await exchange.find("tbone", "BTCUSDT") is None
    assert await exchange.cancel("tbone", "BTCUSDT") is None


@pytest.mark.parametrize("price", [None, D(0)])
async def test_without_a_price_there_is_no_fill(
    desk: Desk, settings: Settings, price: Decimal | None
) -> None:
    exchange = await open_account(desk, settings)
    with pytest.raises(RejectedError, match="the alert has no price"):
        await exchange.place(order(price=price))
    assert await exchange.price("BTCUSDT") is None


async def test_equity_and_holding_are_those_of_the_accounts_strategies(
    desk: Desk, settings: Settings
) -> None:
    account_id = await desk.account(exchange="paper", mode=Mode.PAPER, starting_equity=D(1000))
    other_id = await desk.account(exchange="paper", mode=Mode.PAPER, starting_equity=D(50))
    first, second = await desk.strategy(account_id), await desk.strategy(account_id)
    elsewhere = await desk.strategy(other_id)
    exchange = await reopen(desk, settings, account_id)
    assert (await exchange.equity("BTCUSDT"), await exchange.holding("BTCUSDT")) == (D(1000), D(0))
    btc = {"symbol": "BTCUSDT", "last_price": D(110)}
    await put_position(desk, first, quantity=D(2), average_price=D(100), fees=D("0.5"), **btc)
    await put_position(desk, second, quantity=D("-0.5"), average_price=D(120), realised_pnl=D(7), **btc)
    await put_position(desk, second, symbol="ETHUSDT", realised_pnl=D(-3), fees=D(1))
    await put_position(desk, elsewhere, quantity=D(9), average_price=D(1), **btc)
    assert await exchange.holding("BTCUSDT") == D("1.5")
    # 1000 + 2 * 10 - 0.5 + 0.5 * 10 + 7 - 3 - 1
    assert await exchange.equity("BTCUSDT") == D("1027.5")


async def test_the_default_account_has_the_strategies_without_one(desk: Desk, settings: Settings) -> None:
    default = await open_account(desk, settings, is_default=True)
    other = await open_account(desk, settings)
    strategy = await desk.strategy()
    await put_position(desk, strategy, symbol="BTCUSDT", quantity=D(3), average_price=D(1), last_price=D(2))
    assert (await default.holding("BTCUSDT"), await default.equity("BTCUSDT")) == (D(3), D(10003))
    assert (await other.holding("BTCUSDT"), await other.equity("BTCUSDT")) == (D(0), D(10000))


async def test_a_live_price_comes_from_the_accounts_exchange_without_a_key(
    desk: Desk, settings: Settings
) -> None:
    async with StubExchange() as stub:
        settings = settings.model_copy(update={"exchange_base_url": stub.url})
        exchange = await open_account(desk, settings, exchange="binance", live_price=True, fee_rate=D(0))
        stub.book.prices["BTCUSDT"] = D("43210.5")
        (trade,) = (await exchange.place(order(price=None))).trades
        assert trade.price == await exchange.price("BTCUSDT") == D("43210.5")
        with pytest.raises(RejectedError, match="no live price"):
            await exchange.place(order(symbol="NOPEUSDT"))
        stub.faults.add(Fault("answer", method="GET", path="ticker/24hr", status=503))
        with pytest.raises(NotSentError):
            await exchange.place(order())
        assert not [request for request in stub.received if "X-MBX-APIKEY" in request.headers]
        await exchange.check_credentials()
        await exchange.close()
