"""The paper exchange: prices, fees, what its account is worth, and what it can pay for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as given_by
from pydantic import SecretStr
from sqlalchemy import update

from tests.conftest import ENCRYPTION_KEY, MakeDatabase
from tests.desk import Desk, open_desk, working_here
from tests.stub_exchange import Fault, StubExchange
from tradingbot.core.amounts import SCALE
from tradingbot.core.crypto import Envelopes
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import Exchange, MarketLimits, NotSentError, OrderRequest, RejectedError, Trade
from tradingbot.exchanges.factory import open_exchange
from tradingbot.exchanges.models import ExchangeAccount, Market, Mode
from tradingbot.exchanges.paper import fee, fill_price
from tradingbot.migrations.runner import MigrationSettings, migrate
from tradingbot.orders.models import Order, OrderState, Side
from tradingbot.positions import service as positions
from tradingbot.positions.models import Position
from tradingbot.signals.models import Signal, SignalStatus

D = Decimal
UNIT = D(1).scaleb(-SCALE)
amounts = given_by.decimals(min_value=UNIT, max_value=10**12, places=SCALE)
rates = given_by.decimals(min_value=0, max_value=D("0.999999"), places=6)


@dataclass
class Till:
    """An open paper account, and one of the strategies that trade on it."""

    desk: Desk
    account_id: UUID
    strategy_id: UUID
    exchange: Exchange

    async def order(self, side: str = "buy", quantity: str = "2", **columns: Any) -> OrderRequest:
        """Stores an order of BTC at 100 that is just being sent."""
        values = {"symbol": "BTCUSDT", "price": D(100), "side": Side(side), "quantity": D(quantity)}
        request = OrderRequest(f"tb{uuid4().hex}", **{**values, **columns})
        owners = {"user_id": self.desk.user_id, "exchange_account_id": self.account_id}
        values = {name: value for name, value in vars(request).items() if name != "issued_at"}
        async with self.desk.database.transaction() as session:
            session.add(Order(strategy_id=self.strategy_id, state="submitted", **owners, **values))
        return request

    async def book(self, trade: Trade) -> None:
        """Books what was reported."""
        (stored,) = await self.desk.all(Order, Order.client_order_id == trade.trade_id)
        async with self.desk.database.transaction() as session:
            await positions.apply(session, stored, trade)
            (await session.get_one(Order, stored.id)).state = OrderState.FILLED

    async def place(self, *order: str, **columns: Any) -> Trade:
        """Stores an order and places it; gives its fill."""
        report = await self.exchange.place(await self.order(*order, **columns))
        assert report.state == OrderState.FILLED
        (trade,) = report.trades
        return trade

    async def trade(self, *order: str, **columns: Any) -> Trade:
        """Stores an order, places and books it; gives its fill."""
        trade = await self.place(*order, **columns)
        await self.book(trade)
        return trade

    async def refused(self, *order: str, **columns: Any) -> str:
        """Stores an order that is refused; gives the reason."""
        with pytest.raises(RejectedError) as refusal:
            await self.place(*order, **columns)
        return str(refusal.value)

    async def beside(self) -> "Till":
        """Return the same account, with another strategy on it."""
        strategy_id = await self.desk.strategy(self.account_id)
        return Till(self.desk, self.account_id, strategy_id, self.exchange)


async def open_till(desk: Desk, settings: Settings, **columns: Any) -> Till:
    """Makes a paper account without a fee, of futures, with 1000 in its purse."""
    values = {"fee_rate": D(0), "market": "future", "starting_equity": D(1000), **columns}
    account_id = await desk.account(**{"exchange": "paper", "mode": Mode.PAPER, **values})
    exchange = await reopen(desk, settings, account_id)
    return Till(desk, account_id, await desk.strategy(account_id), exchange)


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


PAPER = {"exchange": "paper", "mode": Mode.PAPER}
# At the prices of a real exchange.
LIVE = {"exchange": "binance", "live_price": True, "market": "spot", "starting_equity": D(100000)}


def later() -> datetime:
    """Return a moment after all that was traded by now."""
    return utc_now() + timedelta(seconds=1)


async def change_account(desk: Desk, **columns: Any) -> None:
    """Changes the user's accounts."""
    async with desk.database.transaction() as session:
        await session.execute(update(ExchangeAccount).values(**columns))


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
    till = await open_till(desk, settings, fee_rate=D("0.001"), slippage_rate=D("0.01"))
    trade = await till.place("buy", "2")
    assert (trade.quantity, trade.price, trade.fee) == (D(2), D(101), D("0.202"))
    assert trade.fee_asset is None
    sold = await till.place("sell", "2")
    assert (sold.price, sold.fee) == (D(99), D("0.198"))
    assert till.exchange.settle_time == 0


async def test_a_fill_stays_what_it_was_until_it_is_booked(desk: Desk, settings: Settings) -> None:
    """A worker may be killed before it books: who finds the order learns at what price it was filled."""
    till = await open_till(desk, settings)
    asked = await till.order()
    name = asked.client_order_id
    assert await till.exchange.find(name, "BTCUSDT") is None
    assert await till.exchange.cancel(name, "BTCUSDT") is None
    (first,) = (await till.exchange.place(asked)).trades
    dearer = OrderRequest(name, "BTCUSDT", Side.BUY, D(2), D(300))
    for again in (await till.exchange.place(dearer), await till.exchange.find(name, "BTCUSDT")):
        assert again is not None
        (trade,) = again.trades
        assert (trade.trade_id, trade.quantity, trade.price) == (first.trade_id, D(2), D(100))
    await till.book(first)
    with pytest.raises(RejectedError, match="over"):
        await till.exchange.place(asked)
    assert await till.exchange.find("tbnone", "BTCUSDT") is None


@pytest.mark.parametrize("price", [None, D(0)])
async def test_without_a_price_there_is_no_fill(
    desk: Desk, settings: Settings, price: Decimal | None
) -> None:
    till = await open_till(desk, settings)
    assert "the alert has no price" in await till.refused(price=price)
    assert await till.exchange.price("BTCUSDT") is None


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
        till = await open_till(desk, settings, **LIVE)
        stub.book.prices["BTCUSDT"] = D("43210.5")
        trade = await till.place(price=None)
        assert trade.price == await till.exchange.price("BTCUSDT") == D("43210.5")
        assert "no live price" in await till.refused(symbol="NOPEUSDT")
        stub.faults.add(Fault("answer", method="GET", path="ticker/24hr", status=503))
        with pytest.raises(NotSentError):
            await till.place()
        assert not [request for request in stub.received if "X-MBX-APIKEY" in request.headers]
        await till.exchange.check_credentials()
        await till.exchange.close()


async def test_with_live_prices_an_order_is_what_the_market_takes(desk: Desk, settings: Settings) -> None:
    async with StubExchange() as stub:
        settings = settings.model_copy(update={"exchange_base_url": stub.url})
        till = await open_till(desk, settings, **LIVE)
        limits = await till.exchange.limits("BTCUSDT")
        assert limits == MarketLimits(D("0.00001"), D(5), shorts=False, step=D("0.00001"))
        # The alert's price says nothing of what it is worth.
        assert (await till.trade("buy", "0.123456789", price=D(1))).quantity == D("0.12345")
        # 0.00009 * 50000 = 4.5
        assert "less than the least order value, 5" in await till.refused("buy", "0.00009", price=D(10**6))
        assert "less than the market's step" in await till.refused("buy", "0.000009")
        assert "NOTIONAL" in await till.refused("sell", "0.00009", reduce_only=True)
        assert (await till.trade("sell", "0.12345", reduce_only=True)).quantity == D("0.12345")
        await till.exchange.close()


@pytest.mark.parametrize(
    ("market", "kept", "asset"), [(Market.SPOT, D("0.4995"), "BTC"), (Market.FUTURE, D("0.5"), None)]
)
async def test_with_live_prices_a_fee_is_taken_from_what_is_bought_on_spot(
    desk: Desk, settings: Settings, market: Market, kept: Decimal, asset: str | None
) -> None:
    async with StubExchange() as stub:
        settings = settings.model_copy(update={"exchange_base_url": stub.url})
        till = await open_till(desk, settings, **LIVE | {"market": market, "fee_rate": D("0.001")})
        bought = await till.trade("buy", "0.5")
        assert (bought.quantity, bought.fee, bought.fee_asset) == (kept, D(25), asset)
        assert await till.exchange.holding("BTCUSDT") == kept
        # 0.5 * 50000 were paid, of futures with the fee on top: all that is left is free, and no more.
        left = D(75000) if asset else D(74975)
        assert await till.exchange.equity("BTCUSDT") == D(99975)
        assert f"and {left} is free" in await till.refused("buy", "2")
        sold = await till.trade("sell", "0.499")
        assert (sold.quantity, sold.fee, sold.fee_asset) == (D("0.499"), D("24.95"), None)
        # Of a short that was there before spot had none.
        other = await till.beside()
        await put_position(desk, other.strategy_id, symbol="BTCUSDT", quantity=D("-0.01"))
        assert (await other.place("buy", "0.01", reduce_only=True)).quantity == D("0.01")
        await till.exchange.close()


async def test_a_million_bitcoins_are_more_than_a_purse_buys(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings, market="spot", starting_equity=D(10000))
    words = "1000000 BTCUSDT would cost 60000000000 with its fee, and 10000 is free on the paper account"
    assert await till.refused("buy", "1000000", price=D(60000)) == words


async def test_spot_spends_its_cash_and_no_more(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings, market="spot", fee_rate=D("0.001"))
    other = await till.beside()
    # 500 and the fee, 0.5.
    await till.trade("buy", "5")
    assert await other.refused("buy", "5") == (
        "5 BTCUSDT would cost 500.5 with its fee, and 499.5 is free on the paper account"
    )
    # What is held is worth more by now. It is not cash.
    async with desk.database.transaction() as session:
        await positions.mark(session, till.strategy_id, "BTCUSDT", D(900), later())
    assert await till.exchange.equity("BTCUSDT") == 1000 + 5 * 800 - D("0.5")
    assert "and 499.5 is free" in await other.refused("buy", "5")
    await other.trade("buy", "4.99")
    # 499.5 - 499.499
    assert "and 0.001 is free" in await other.refused("buy", "0.01")
    # What was sold for 600, less 0.6, and realised 100, buys again.
    await till.trade("sell", "5", price=D(120))
    assert "and 599.401 is free" in await till.refused("buy", "6")


async def test_on_spot_no_more_is_sold_than_is_held(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings, market="spot")
    assert await till.exchange.limits("BTCUSDT") == MarketLimits(shorts=False)
    other = await till.beside()
    await till.trade("buy", "2")
    assert await till.refused("sell", "3") == "3 BTCUSDT is more than is held, 2"
    # Each strategy has its own.
    assert await other.refused("sell", "1") == "1 BTCUSDT is more than is held, 0"
    await till.trade("sell", "2")


async def test_futures_are_held_for_as_much_as_the_account_is_worth(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings)
    assert await till.exchange.limits("BTCUSDT") == MarketLimits(shorts=True)
    await till.trade("sell", "6")
    assert "and 400 is free" in await till.refused("sell", "4.1")
    async with desk.database.transaction() as session:
        await positions.mark(session, till.strategy_id, "BTCUSDT", D(120), later())
    # Worth 1000 - 6 * 20 = 880, and 6 * 120 = 720 are held.
    assert "cost 168 with its fee, and 160 is free" in await till.refused("sell", "1.4", price=D(120))
    await till.trade("sell", "1.3", price=D(120))


async def test_a_turn_frees_what_it_closes(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings)
    await till.trade("sell", "6")
    assert "17 BTCUSDT would cost 500 with its fee, and 400 is free" in await till.refused("buy", "17")
    # From 6 short to 10 long, worth all there is.
    await till.trade("buy", "16")
    assert await desk.held(till.strategy_id) == 10


async def test_an_exit_needs_no_money(desk: Desk, settings: Settings) -> None:
    """Of one that was bought before there was a purse, and is worth less than nothing by now."""
    till = await open_till(desk, settings, market="spot", fee_rate=D("0.1"))
    btc = {"symbol": "BTCUSDT", "quantity": D(1000000), "average_price": D(60000), "last_price": D(50000)}
    await put_position(desk, till.strategy_id, **btc)
    other = await till.beside()
    await put_position(desk, other.strategy_id, **btc | {"quantity": D(-7)})
    assert "and 0 is free" in await till.refused("buy", "0.001")
    await till.trade("sell", "1000000", price=D(50000))
    await other.trade("buy", "7", price=D(50000), reduce_only=True)
    assert await till.exchange.holding("BTCUSDT") == 0


async def test_no_exit_goes_through_zero(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings)
    await till.trade("buy", "2")
    assert "3 BTCUSDT is more than is held, 2" in await till.refused("sell", "3", reduce_only=True)
    assert "more than is held" in await till.refused("buy", "1", reduce_only=True)


async def test_what_is_held_counts_at_the_price_of_the_moment(desk: Desk, settings: Settings) -> None:
    """Of the same market, whoever holds it: what another one was last told of is old by now."""
    till = await open_till(desk, settings)
    await till.trade("sell", "4")
    other = await till.beside()
    # The short is worth 800 now, and the equity 600.
    assert "and 0 is free" in await other.refused("buy", "1", price=D(200))
    assert (await other.trade("buy", "5", price=D(100))).quantity == 5


async def test_a_turn_that_is_not_booked_yet_ties_what_it_will_hold(desk: Desk, settings: Settings) -> None:
    till = await open_till(desk, settings)
    await till.trade("buy", "4")
    turned = await till.place("sell", "8")
    other = await till.beside()
    assert "and 600 is free" in await other.refused("buy", "7")
    await till.book(turned)
    assert "and 600 is free" in await other.refused("buy", "7")


async def test_what_is_held_of_a_market_that_is_gone_gets_out_at_live_prices(
    desk: Desk, settings: Settings
) -> None:
    async with StubExchange() as stub:
        settings = settings.model_copy(update={"exchange_base_url": stub.url})
        till = await open_till(desk, settings, **LIVE)
        await put_position(desk, till.strategy_id, symbol="GONEUSDT", quantity=D(3))
        sold = await till.place("sell", "3", symbol="GONEUSDT", reduce_only=True, price=D(7))
        assert (sold.quantity, sold.price) == (D(3), D(7))
        assert "has no live price" in await till.refused("buy", "3", symbol="GONEUSDT", price=D(7))
        await till.exchange.close()


@pytest.mark.parametrize(
    ("columns", "costs"), [({}, "0"), ({"live_price": True}, "0.002"), ({"mode": "live"}, "0.002")]
)
def test_an_order_by_equity_leaves_room_for_a_price_that_moves(columns: dict[str, Any], costs: str) -> None:
    values = {"mode": "paper", "live_price": False, "fee_rate": D(0), "slippage_rate": D(0)}
    assert ExchangeAccount(**values | columns).costs == D(costs)


async def test_of_two_who_spend_the_same_money_at_once_one_does(desk: Desk, settings: Settings) -> None:
    """Nothing is booked yet when the second one asks."""
    tills = [await open_till(desk, settings, market="spot")]
    tills += [await tills[0].beside() for _ in range(9)]
    # Three of 300 and 3 % fit into 1000.
    await change_account(desk, fee_rate=D("0.03"))
    tills[0].exchange = exchange = await reopen(desk, settings, tills[0].account_id)
    orders = [await till.order("buy", "3") for till in tills]
    results = await asyncio.gather(*(exchange.place(one) for one in orders), return_exceptions=True)
    reports = [result for result in results if not isinstance(result, BaseException)]
    refusals = [str(result) for result in results if isinstance(result, BaseException)]
    assert len(reports) == 3
    assert set(refusals) == {"3 BTCUSDT would cost 309 with its fee, and 73 is free on the paper account"}
    # Booked, they count once.
    await tills[0].book(reports[0].trades[0])
    assert "and 73 is free" in await tills[0].refused("buy", "3")


async def test_workers_spend_the_money_of_an_account_once(desk: Desk, settings: Settings) -> None:
    account = await desk.account(exchange="paper", mode=Mode.PAPER, starting_equity=D(1000))
    strategies = [await desk.strategy(account) for _ in range(8)]
    for strategy in strategies:
        await desk.queue(strategy, quantity=D(3), price=D(100))
    async with working_here(settings), working_here(settings):
        await desk.until_idle()
    states = sorted(order.state for order in await desk.orders())
    assert states == ["filled"] * 3 + ["rejected"] * 5
    failed = await desk.all(Signal, Signal.status == SignalStatus.FAILED)
    assert len(failed) == 5
    assert {signal.status_reason for signal in failed} == {
        "the exchange refused the order: 3 BTCUSDT would cost 300.3 with its fee,"
        " and 99.1 is free on the paper account"
    }


async def say(desk: Desk, strategy: UUID, target: str, price: str = "100", size: str | None = None) -> None:
    """Queues a target, and waits until a worker that runs has traded it."""
    amount = None if size is None else D(size)
    columns = {"market_position": target, "position_size": amount, "quantity": None, "price": D(price)}
    await desk.queue(strategy, None, **columns)
    await desk.until_idle()


async def test_all_of_the_equity_is_turned_from_long_to_short_and_back(
    desk: Desk, settings: Settings
) -> None:
    account = {"fee_rate": D("0.001"), "slippage_rate": D("0.002"), "market": "future"}
    account_id = await desk.account(exchange="paper", mode=Mode.PAPER, **account)
    strategy = await desk.strategy(account_id, sizing="equity_percent", sizing_value=D(100))
    async with working_here(settings):
        for target, price in [
            ("long", "97"),
            ("short", "61"),
            ("long", "83"),
            ("short", "83"),
            ("flat", "7"),
        ]:
            await say(desk, strategy, target, price)
            held = await desk.held(strategy)
            exchange = await reopen(desk, settings, account_id)
            equity = await exchange.equity("BTCUSDT")
            assert equity is not None
            # No more than all, and all but what the way there cost.
            assert target == "flat" or D("0.98") * equity < abs(held) * D(price) <= equity
            assert (held > 0, held < 0) == (target == "long", target == "short")
    assert {order.state for order in await desk.orders()} == {"filled"}


async def test_in_out_and_in_again(desk: Desk, settings: Settings) -> None:
    """The first steps of the README: on the default account, and at live prices, where fees leave dust."""
    async with StubExchange() as stub:
        settings = settings.model_copy(update={"exchange_base_url": stub.url})
        live = await desk.account(**PAPER | LIVE | {"fee_rate": D("0.001"), "starting_equity": D(500)})
        sizing: dict[str, Any] = {"sizing": "fixed_quote", "sizing_value": D(250)}
        strategies = [await desk.strategy(**sizing), await desk.strategy(live, **sizing)]
        async with working_here(settings):
            for strategy in strategies:
                for target, quantity in [("long", "0.005"), ("flat", "0"), ("long", "0.005")]:
                    await say(desk, strategy, target, "50000")
                    held = await desk.held(strategy)
                    # The fee, or less than a step.
                    assert D(quantity) - D("0.000005") <= held < D(quantity) + D("0.00001")
    assert {order.state for order in await desk.orders()} == {"filled"}
    assert len(await desk.orders()) == 6


async def test_the_default_account_takes_shorts_also_one_of_an_earlier_version(
    desk: Desk, settings: Settings
) -> None:
    async with open_desk(settings, "new@mail.test") as new:
        await desk.account(**PAPER, is_default=True)
        for trader in (desk, new):
            strategy = await trader.strategy()
            async with working_here(settings):
                await say(trader, strategy, "short", size="1")
            assert await trader.held(strategy) == -1
            (account,) = await trader.all(ExchangeAccount)
            assert (account.market, account.is_default) == ("future", True)


async def test_a_strategy_that_names_the_default_account_of_an_earlier_version_goes_short(
    settings: Settings, make_database: MakeDatabase
) -> None:
    url = await asyncio.to_thread(make_database)
    migrating = MigrationSettings.model_validate({"database_url": url})
    await migrate(migrating, "0009")
    settings = settings.model_copy(update={"database_url": SecretStr(url)})
    async with open_desk(settings, "old@mail.test") as desk:
        strategy = await desk.strategy(await desk.account(**PAPER, is_default=True))
        await migrate(migrating)
        async with working_here(settings):
            await say(desk, strategy, "short", size="1")
        assert await desk.held(strategy) == -1


@pytest.mark.parametrize(
    ("target", "left"), [("flat", "0"), ("long", "0.5"), ("short", "-1"), ("short 0.25", "-0.25")]
)
async def test_a_short_on_spot_of_an_earlier_version_gets_out(
    desk: Desk, settings: Settings, target: str, left: str
) -> None:
    strategy = await desk.strategy(await desk.account(**PAPER))
    short = {"quantity": D(-1), "average_price": D(100), "last_price": D(100)}
    await put_position(desk, strategy, symbol="BTCUSDT", **short)
    async with working_here(settings):
        word, _, size = target.partition(" ")
        await say(desk, strategy, word, size=size or ("0.5" if word == "long" else "2"))
    assert await desk.held(strategy) == D(left)
    assert {order.state for order in await desk.orders()} <= {"filled"}
