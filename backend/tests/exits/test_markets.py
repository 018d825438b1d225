"""One market is one position, however alerts spell it, at a real exchange."""

from decimal import Decimal

import pytest

from tests.desk import Desk, working_here
from tests.exits.steps import Say, future, queue, spot
from tests.stub_exchange import StubExchange
from tradingbot.core.settings import Settings
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import OrderState
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions.models import Position
from tradingbot.risk.models import Rule
from tradingbot.signals.models import Signal, SignalStatus
from tradingbot.strategies.models import Strategy

D = Decimal


async def test_all_spellings_open_and_close_one_position(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk, max_position=D("0.03"))
    for spelling in ("BTCUSDT.P", "BINANCE:BTCUSDT", "btc/usdt:usdt"):
        bought = await say(strategy, "buy", "0.01", symbol=spelling)
        assert bought.status == SignalStatus.ORDERED, bought.status_reason
    (position,) = await desk.all(Position)
    assert (position.symbol, position.quantity) == ("BTCUSDT.P", D("0.03"))
    assert stub.account.positions["BTCUSDT"] == D("0.03")
    # No spelling gets by a limit.
    too_much = await say(strategy, "buy", "0.01", symbol="BTC-USDT")
    assert (await desk.refusal(too_much.id)).rule == Rule.MAX_POSITION
    closed = await say(strategy, "close", symbol="btcusdt")
    assert closed.status == SignalStatus.ORDERED
    assert stub.account.positions["BTCUSDT"] == 0
    (position,) = await desk.all(Position)
    assert position.quantity == 0


async def test_a_market_that_the_exchange_does_not_have_is_refused_in_these_words(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await spot(desk)
    for symbol, words in {
        "NOPEUSDT": "binance has no spot market NOPEUSDT",
        "BYBIT:BTCUSDT": "BYBIT:BTCUSDT is a symbol of BYBIT, and the account is at binance",
        "BTCUSDT.P": "BTCUSDT.P is a perpetual contract",
    }.items():
        signal = await say(strategy, "buy", "0.01", symbol=symbol)
        refusal = await desk.refusal(signal.id)
        assert (signal.status, refusal.rule) == (SignalStatus.REFUSED, Rule.SYMBOL)
        assert words in refusal.reason
    assert stub.posts() == []
    assert await desk.orders() == []


@pytest.mark.parametrize("word", ["close", "flat", "short"])
async def test_an_exit_by_the_chart_of_another_exchange_gets_out(
    desk: Desk, stub: StubExchange, say: Say, word: str
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "0.02")
    signal = await say(strategy, word, "0.01" if word == "short" else None, symbol="BYBIT:BTCUSDT.P")
    assert signal.status == SignalStatus.ORDERED
    # What it would have opened is refused, and told.
    assert stub.account.positions["BTCUSDT"] == 0
    assert ("BYBIT" in (signal.status_reason or "")) == (word == "short")
    assert {order.state for order in await desk.orders()} == {OrderState.FILLED}


async def test_a_position_is_spelled_as_it_was_last_got_into(
    desk: Desk, stub: StubExchange, settings: Settings
) -> None:
    strategy_id = await desk.strategy()
    async with working_here(settings):
        # On paper, by the chart of another exchange.
        for action in ("buy", "sell"):
            await queue(desk, strategy_id, action, "0.01", symbol="BYBIT:BTCUSDT.P")
        await desk.until_idle(20)
        account_id = await desk.account()
        async with desk.database.transaction() as session:
            strategy = await session.get_one(Strategy, strategy_id)
            strategy.exchange_account_id = account_id
        await queue(desk, strategy_id, "buy", "0.01", symbol="BINANCE:BTCUSDT")
        await desk.until_idle(20)
        (position,) = await desk.all(Position)
        assert (position.symbol, position.quantity) == ("BINANCE:BTCUSDT", D("0.01"))
        await queue(desk, strategy_id, "flat", symbol="BYBIT:BTCUSDT.P")
        await desk.until_idle(20)
    assert await desk.held(strategy_id, "BINANCE:BTCUSDT") == 0
    assert [order.side for order in stub.account.orders] == ["BUY", "SELL"]


async def test_a_spelling_that_the_exchange_does_not_have_leaves_dust_dust(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    stub.book.fee_asset = "base"
    strategy = await spot(desk, sizing="fixed_quote", sizing_value=D(250))
    for word in ("long", "flat"):
        await say(strategy, word)
    (before,) = await desk.all(Position)
    assert before.quantity > 0
    assert before.is_flat
    assert (await say(strategy, "long", symbol="BYBIT:BTCUSDT")).status == SignalStatus.REFUSED
    (after,) = await desk.all(Position)
    assert (after.quantity, after.min_quantity) == (before.quantity, before.min_quantity)


async def test_strategies_of_an_earlier_version_share_a_futures_market(
    desk: Desk, stub: StubExchange, settings: Settings
) -> None:
    """Now they are refused when they are made. Those that are there trade on, and no difference is seen."""
    account = await desk.account(market=Market.FUTURE, mode=Mode.DEMO)
    strategies = [await desk.strategy(account) for _ in range(3)]
    for _ in range(3):
        for strategy in strategies:
            await queue(desk, strategy, "buy", "0.02")
    async with working_here(settings):
        await desk.until_idle(20)
    assert {signal.status for signal in await desk.all(Signal)} == {SignalStatus.ORDERED}
    assert stub.account.positions["BTCUSDT"] == D("0.18")


async def test_the_queue_of_a_market_is_one(desk: Desk, stub: StubExchange) -> None:
    strategy = await future(desk)
    for spelling in ("BTCUSDT.P", "BTC/USDT:USDT", "bybit:btcusdt"):
        await queue(desk, strategy, "buy", "0.01", symbol=spelling)
    assert {row.symbol for row in await desk.all(OutboxRow)} == {"BTCUSDT"}
