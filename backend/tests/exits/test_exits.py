"""An exit is cut, split, repeated or moved ahead until the position is flat, or a person says stop.

Through the worker, at the stub exchange: what is right here stays right however the worker is built.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from tests.desk import Desk, until, working_here
from tests.exits.steps import SILENT, Say, close, future, has_state, queue, spot, was_told
from tests.stub_exchange import Fault, Filling, StubExchange
from tests.stub_exchange.faults import FOREVER
from tests.test_kill import killed, let_time_pass
from tradingbot.core.errors import ConflictError
from tradingbot.core.settings import Settings
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.orders import client_order_id
from tradingbot.orders import repository as orders
from tradingbot.orders.models import Order, OrderState
from tradingbot.orders.placing import Placer
from tradingbot.orders.service import request_cancel
from tradingbot.outbox import repository as outbox
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions import closing, reading
from tradingbot.positions.models import Position
from tradingbot.positions.queries import PositionFilter
from tradingbot.positions.schemas import Direction
from tradingbot.risk import halts
from tradingbot.risk.halts import Target
from tradingbot.signals.models import Signal, SignalStatus
from tradingbot.strategies import service as strategies
from tradingbot.strategies.models import Sizing, Strategy
from tradingbot.strategies.schemas import StrategyChanges
from tradingbot.users.models import User

D = Decimal
DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("unhurried")


async def change(desk: Desk, strategy: UUID, **values: Any) -> None:
    async with desk.database.transaction() as session:
        await session.execute(update(Strategy).where(Strategy.id == strategy).values(**values))


async def reason_of(desk: Desk, signal: Signal) -> str:
    return signal.status_reason or ""


async def has_posts(stub: StubExchange, number: int) -> bool:
    return len(stub.posts()) >= number


async def holds(desk: Desk, strategy: UUID, symbol: str) -> bool:
    return await desk.held(strategy, symbol) != 0


def sold(stub: StubExchange) -> Decimal:
    """What was sold at the exchange, over all orders."""
    return sum((order.executed for order in stub.account.orders if order.side == "SELL"), D(0))


# Dust


async def test_long_flat_long_with_the_fee_taken_in_the_bought_asset(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    """The README's first strategy at Binance's default."""
    stub.book.fee_asset = "base"
    strategy = await spot(desk, sizing="fixed_quote", sizing_value=D(250), max_position=D("0.005"))
    signals = [await say(strategy, word) for word in ("long", "flat", "long", "flat", "long")]
    assert [signal.status for signal in signals] == [SignalStatus.ORDERED] * 5
    assert [order.side for order in stub.account.orders] == ["BUY", "SELL", "BUY", "SELL", "BUY"]


async def test_dust_is_flat_for_a_second_exit_and_is_shown(desk: Desk, stub: StubExchange, say: Say) -> None:
    stub.book.fee_asset = "base"
    strategy = await spot(desk, sizing="fixed_quote", sizing_value=D(250))
    await say(strategy, "long")
    await say(strategy, "flat")
    again = await say(strategy, "flat")
    assert again.status == SignalStatus.NOTHING_TO_DO
    assert "dust" in await reason_of(desk, again)
    assert await desk.held(strategy) == D("0.000005")
    assert (await desk.events("position"))[-1]["is_dust"] is True


async def test_dust_does_not_tie_a_strategy_to_its_account(desk: Desk, stub: StubExchange, say: Say) -> None:
    stub.book.fee_asset = "base"
    strategy = await spot(desk, sizing="fixed_quote", sizing_value=D(250))
    await say(strategy, "long")

    async def move() -> None:
        changes = StrategyChanges(exchange_account_id=await desk.account())
        async with desk.database.transaction() as session:
            found = await strategies.get(session, desk.user_id, strategy, change=True)
            await strategies.change(session, found, changes)

    with pytest.raises(ConflictError):
        await move()
    await say(strategy, "flat")
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        order = await closing.close(session, desk.user_id, position.id, "key")
    await desk.until_idle()
    order = (await desk.orders())[-1]
    assert order.state == OrderState.CANCELLED
    assert (order.reason or "").startswith("what is left is dust, less than the market's least order, 0.0001")
    async with desk.database.transaction() as session:
        for side, number in ((Direction.LONG, 0), (Direction.FLAT, 1)):
            page = await reading.list_page(session, desk.user_id, PositionFilter(direction=side), 9, None)
            assert len(page.items) == number
    await move()
    # It stays on the account before, where alone it is.
    assert await desk.held(strategy) == 0
    assert (await desk.events("position"))[-1]["quantity"] == "0"


# Never more than is held


async def test_a_short_target_on_spot_means_flat(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    signal = await say(strategy, "short", "1")
    assert signal.status == SignalStatus.ORDERED
    assert "spot" in await reason_of(desk, signal)
    assert await desk.held(strategy) == 0
    assert sold(stub) == 1
    # Ten of somebody else's are still there.
    assert stub.account.balances["BTC"] == 10


async def test_a_sell_on_spot_sells_no_more_than_the_strategy_holds(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    """The fee was taken in the bought asset, and ten of somebody else's are in the account."""
    stub.book.fee_asset = "base"
    strategy = await spot(desk)
    await say(strategy, "buy", "1")
    signal = await say(strategy, "sell", "1")
    assert signal.status == SignalStatus.ORDERED
    assert signal.status_reason == "on spot no more is sold than the strategy holds, 0.999 BTCUSDT"
    assert await desk.held(strategy) == 0
    assert stub.account.balances["BTC"] == 10
    nothing = await say(strategy, "sell", "1")
    assert nothing.status == SignalStatus.NOTHING_TO_DO
    assert len(stub.account.orders) == 2


async def test_two_strategies_on_one_spot_account_do_not_sell_each_others_coins(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    account = await desk.account()
    first, second = await desk.strategy(account), await desk.strategy(account)
    await say(first, "long", "1")
    await say(second, "short", "1")
    await say(second, "sell", "1")
    assert await desk.held(first) == 1
    assert sold(stub) == 0
    await say(second, "buy", "0.5")
    await say(second, "sell", "5")
    assert (await desk.held(first), await desk.held(second), sold(stub)) == (D(1), D(0), D("0.5"))


async def test_what_is_not_there_any_more_is_not_sold(desk: Desk, stub: StubExchange, say: Say) -> None:
    """The owner has taken coins out of the account: an exit sells what is left of them."""
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.account.balances["BTC"] = D("0.4")
    signal = await say(strategy, "flat")
    assert signal.status == SignalStatus.ORDERED
    order = (await desk.orders())[1]
    assert (order.state, order.filled_quantity) == (OrderState.FILLED, D("0.4"))
    assert await desk.held(strategy) == D("0.6")


async def test_nor_is_it_when_it_is_closed_by_hand(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.account.balances["BTC"] = D("0.4")
    await close(desk)
    await desk.until_idle()
    order = (await desk.orders())[1]
    assert (order.state, order.filled_quantity) == (OrderState.FILLED, D("0.4"))
    assert await desk.held(strategy) == D("0.6")


# A flip that may not open still closes


async def halt(desk: Desk) -> None:
    async with desk.database.transaction() as session:
        await halts.switch_on(session, Target(desk.user_id), "lunch")


async def is_closed_only(desk: Desk, stub: StubExchange, strategy: UUID, signal: Signal, rule: str) -> None:
    """The long of one is sold, and why there is no short is told."""
    assert signal.status == SignalStatus.ORDERED
    assert (signal.status_reason or "").startswith("only what is held is closed: ")
    assert (await desk.refusal(signal.id)).rule == rule
    assert await desk.held(strategy) == 0
    assert (sold(stub), stub.account.positions["BTCUSDT"]) == (D(1), D(0))


async def test_a_flip_beyond_a_limit_closes(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk, max_position=D(1))
    await say(strategy, "long", "1")
    await is_closed_only(desk, stub, strategy, await say(strategy, "short", "2"), "max_position")
    again = await say(strategy, "short", "2")
    assert again.status == SignalStatus.REFUSED


async def test_a_flip_of_an_unknown_size_closes(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    await is_closed_only(desk, stub, strategy, await say(strategy, "short"), "no_quantity")


async def test_a_flip_under_a_halt_closes(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    await halt(desk)
    await is_closed_only(desk, stub, strategy, await say(strategy, "short", "1"), "halted")
    assert (await say(strategy, "long", "1")).status == SignalStatus.REFUSED


async def test_a_strategy_that_is_switched_off_closes_nothing_under_a_halt_either(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    await halt(desk)
    await change(desk, strategy, is_active=False)
    for word in ("flat", "short"):
        signal = await say(strategy, word, "1")
        assert (await desk.refusal(signal.id)).rule == "strategy_off"
    assert await desk.held(strategy) == 1


@pytest.mark.parametrize("word", ["flat", "close", "sell"])
async def test_exits_pass_a_halt(desk: Desk, stub: StubExchange, say: Say, word: str) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    await halt(desk)
    assert (await say(strategy, word, "1")).status == SignalStatus.ORDERED
    assert await desk.held(strategy) == 0


@pytest.mark.parametrize("sizing", list(Sizing))
async def test_a_plain_sell_under_a_halt_closes_by_any_sizing(
    desk: Desk, stub: StubExchange, say: Say, sizing: Sizing
) -> None:
    """The size is that of the entry: all of it."""
    value = {"fixed_quantity": D("0.5"), "fixed_quote": D(25000), "equity_percent": D("2.5")}.get(sizing)
    strategy = await future(desk, sizing=sizing, sizing_value=value)
    await say(strategy, "buy", "0.5")
    assert await desk.held(strategy) > D("0.49")
    await halt(desk)
    assert (await say(strategy, "sell", "0.5")).status == SignalStatus.ORDERED
    assert await desk.held(strategy) < D("0.002")


async def test_a_flip_that_comes_too_late_closes(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    long_ago = (await desk.now()) - DAY
    signal = await say(strategy, "short", "1", sent_at=long_ago)
    await is_closed_only(desk, stub, strategy, signal, "stale")


async def test_a_flip_that_the_model_forbids_closes(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk, model_name="none", model_mode="off")
    await say(strategy, "long", "1")
    async with desk.database.transaction() as session:
        await session.execute(update(Strategy).values(model_mode="veto"))
    await is_closed_only(desk, stub, strategy, await say(strategy, "short", "1"), "model")


async def test_a_flip_that_the_exchange_refuses_closes(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    stub.account.wallet = D(2000)
    signal = await say(strategy, "short", "1")
    assert signal.status == SignalStatus.ORDERED
    assert "Margin is insufficient" in (signal.status_reason or "")
    assert await desk.held(strategy) == 0
    assert stub.account.positions["BTCUSDT"] == 0


async def test_a_halt_between_two_attempts_leaves_the_exit_of_a_flip(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await future(desk)
    await say(strategy, "long", "1")
    stub.faults.add(Fault("answer", status=429, code=-1003, retry_after=1))
    signal_id = await queue(desk, strategy, "short", "1")
    await until(lambda: has_posts(stub, 2))
    await halt(desk)
    await desk.until_idle()
    await is_closed_only(desk, stub, strategy, await desk.signal(signal_id), "halted")


async def test_a_newer_entry_does_not_drop_an_older_exit(
    desk: Desk, stub: StubExchange, settings: Settings
) -> None:
    """`short` would have closed the long; the `long` behind it, which takes its place, is refused."""
    strategy = await future(desk, max_position=D(1))
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
    older = await queue(desk, strategy, "short", "1")
    newer = await queue(desk, strategy, "long", "2")
    async with working_here(settings):
        await desk.until_idle()
    assert (await desk.signal(older)).status_reason == (
        "only what is held is closed: a newer target position is queued"
    )
    assert (await desk.refusal(newer)).rule == "max_position"
    assert await desk.held(strategy) == 0
    assert stub.account.positions["BTCUSDT"] == 0


async def test_an_older_target_of_the_same_direction_is_not_worked_off(
    desk: Desk, stub: StubExchange, settings: Settings
) -> None:
    strategy = await future(desk)
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
    older = await queue(desk, strategy, "long", "0.5")
    await queue(desk, strategy, "long", "1")
    async with working_here(settings):
        await desk.until_idle()
    assert (await desk.signal(older)).status == SignalStatus.NOTHING_TO_DO
    assert len(stub.account.orders) == 1


# One refusal is not the end


REFUSALS = [
    Fault("answer", status=400, code=-1013, message="Market is closed.", times=3),
    Fault("answer", status=400, code=-1016, message="This service is no longer available.", times=3),
    Fault("answer", status=401, code=-2015, message="Invalid API-key, IP, or permissions.", times=3),
    Fault("answer", status=400, code=-2010, message="Account has insufficient balance.", times=3),
]


@pytest.mark.parametrize("fault", REFUSALS, ids=lambda fault: str(fault.code))
@pytest.mark.parametrize("open_", [spot, future], ids=["spot", "future"])
async def test_an_exit_that_is_refused_is_tried_again(
    desk: Desk, stub: StubExchange, say: Say, open_: Callable[..., Awaitable[UUID]], fault: Fault
) -> None:
    strategy = await open_(desk)
    await say(strategy, "long", "1")
    stub.faults.add(replace(fault))
    signal = await say(strategy, "flat")
    assert signal.status == SignalStatus.ORDERED
    assert await desk.held(strategy) == 0
    order = (await desk.orders())[1]
    assert (order.state, order.attempts) == (OrderState.FILLED, 4)
    assert (stub.account.booked(order.client_order_id), stub.sent(order.client_order_id)) == (1, 4)


REVOKED = Fault("answer", "before", "*", times=FOREVER, status=401, code=-2015, message="Invalid API-key.")


async def test_an_exit_with_a_revoked_key_is_told_and_can_be_cancelled(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    """Neither is it sent, nor can the exchange be asked for it."""
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(replace(REVOKED))
    await queue(desk, strategy, "flat")
    await until(lambda: has_posts(stub, 4))
    assert {title for title, _text in told if "filled" not in _text} == {"BTCUSDT: an exit does not get out"}

    async def is_new() -> bool:
        return (await desk.orders())[1].state == OrderState.NEW

    await until(is_new)
    async with desk.database.transaction() as session:
        await request_cancel(session, desk.user_id, (await desk.orders())[1].id)
    await desk.until_idle()
    assert (await desk.orders())[1].state == OrderState.CANCELLED


async def test_an_exit_of_unknown_fate_is_told(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(Fault("drop", "after"))
    stub.faults.add(replace(REVOKED, method="GET"))
    await queue(desk, strategy, "flat")

    async def is_told() -> bool:
        return any(title == "BTCUSDT: an exit does not get out" for title, _text in told)

    await until(is_told)
    assert (await desk.orders())[1].state == OrderState.UNKNOWN
    stub.faults.clear()
    await desk.until_idle()
    assert await desk.held(strategy) == 0
    assert set(stub.account.counts().values()) == {1}


@pytest.mark.parametrize("word", ["flat", "close", "sell", "short"])
async def test_an_exit_on_paper_needs_no_price(desk: Desk, say: Say, word: str) -> None:
    """It is filled at the last one that was met."""
    strategy = await desk.strategy()
    await say(strategy, "long", "0.1")
    signal = await say(strategy, word, "0.1", price=None)
    assert signal.status == SignalStatus.ORDERED
    assert await desk.held(strategy) == 0
    assert (await desk.orders())[1].average_price == 50000


async def test_an_exchange_that_is_away_is_told_of_exits_alone(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(Fault("answer", "before", "*", times=FOREVER, path="", status=429, retry_after=0))
    await queue(desk, strategy, "long", "1", symbol="ETHUSDT")
    await queue(desk, strategy, "flat")

    async def is_told() -> bool:
        return sum("does not get out" in title for title, _text in told) >= 3

    await until(is_told)
    stub.faults.clear()
    await desk.until_idle()
    assert {title for title, _text in told if "does not get out" in title} == {
        "BTCUSDT: an exit does not get out"
    }
    assert await desk.held(strategy) == 0


async def test_an_exit_waits_for_an_account_that_cannot_be_opened(
    desk: Desk, stub: StubExchange, settings: Settings, told: list[tuple[str, str]]
) -> None:
    """The first attempt finds it so before it decides, the second one with the order made."""
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
    (account,) = await desk.all(ExchangeAccount)

    async def seal(envelope: str | None) -> None:
        async with desk.database.transaction() as session:
            await session.execute(update(ExchangeAccount).values(key_envelope=envelope))

    async def is_told(times: int) -> bool:
        return sum("exchange account cannot be used" in text for _title, text in told) >= times

    await seal("v1.broken")
    signal_id = await queue(desk, strategy, "flat")
    async with working_here(settings):
        await until(lambda: is_told(2))
        assert (await desk.signal(signal_id)).status == SignalStatus.QUEUED
        stub.book.change("spot", "BTCUSDT", status="BREAK")
        await seal(account.key_envelope)
        await until(lambda: has_posts(stub, 2))
        await seal("v1.broken")
        stub.book.change("spot", "BTCUSDT", status="TRADING")
        await until(lambda: is_told(4))
        assert await desk.held(strategy) == 1
        await seal(account.key_envelope)
        await desk.until_idle()
    assert await desk.held(strategy) == 0
    assert set(stub.account.counts().values()) == {1}


async def test_an_exit_is_cancelled_while_its_account_cannot_be_opened(
    desk: Desk, stub: StubExchange, settings: Settings, told: list[tuple[str, str]]
) -> None:
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
        stub.book.change("spot", "BTCUSDT", status="BREAK")
        await queue(desk, strategy, "flat")
        await until(lambda: has_posts(stub, 2))
        async with desk.database.transaction() as session:
            await session.execute(update(ExchangeAccount).values(key_envelope="v1.broken"))

        async def is_told() -> bool:
            return any("exchange account cannot be used" in text for _title, text in told)

        await until(is_told)
        async with desk.database.transaction() as session:
            await request_cancel(session, desk.user_id, (await desk.orders())[1].id)
        await desk.until_idle()
    assert (await desk.orders())[1].state == OrderState.CANCELLED


async def test_an_entry_that_is_refused_is_not_tried_again(desk: Desk, stub: StubExchange, say: Say) -> None:
    stub.faults.add(replace(REFUSALS[0]))
    strategy = await spot(desk)
    assert (await say(strategy, "long", "1")).status == SignalStatus.FAILED
    assert len(stub.posts()) == 1


async def test_a_closed_market_holds_up_no_other_market_and_ends_when_it_opens(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.book.change("spot", "BTCUSDT", status="BREAK")
    exit_id = await queue(desk, strategy, "flat")
    await until(lambda: has_posts(stub, 8))
    elsewhere = await queue(desk, strategy, "long", "1", symbol="ETHUSDT", price=D(2500))
    await until(lambda: holds(desk, strategy, "ETHUSDT"))
    assert (await desk.signal(elsewhere)).status == SignalStatus.ORDERED
    # People are told with the first attempt, the second, the fourth and so on: not with each.
    stuck = [text for title, text in told if title == "BTCUSDT: an exit does not get out"]
    assert ["Market is closed" in text for text in stuck[:3]] == [True] * 3
    assert len(stuck) < len(stub.posts()) - 3
    stub.book.change("spot", "BTCUSDT", status="TRADING")
    await desk.until_idle()
    assert await desk.held(strategy) == 0
    assert (await desk.signal(exit_id)).status == SignalStatus.ORDERED


async def test_a_person_ends_an_exit_by_cancelling_its_order(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.book.change("spot", "BTCUSDT", status="BREAK")
    await queue(desk, strategy, "flat")
    await until(lambda: has_posts(stub, 3))
    order = (await desk.orders())[1]
    async with desk.database.transaction() as session:
        await request_cancel(session, desk.user_id, order.id)
    await desk.until_idle()
    order = (await desk.orders())[1]
    assert (order.state, order.reason) == (OrderState.CANCELLED, "cancelled before it was sent")
    assert order.cancel_requested_at is not None
    stub.book.change("spot", "BTCUSDT", status="TRADING")
    assert await desk.held(strategy) == 1
    # A new exit is a new one.
    await say(strategy, "flat")
    assert await desk.held(strategy) == 0


@pytest.mark.parametrize("open_", [spot, future], ids=["spot", "future"])
async def test_an_exit_is_split_by_the_largest_market_order(
    desk: Desk, stub: StubExchange, settings: Settings, open_: Callable[..., Awaitable[UUID]]
) -> None:
    strategy = await open_(desk)
    for word in ("long", "flat"):
        # One after the other: a worker keeps the filters for an hour.
        async with working_here(settings):
            signal = await desk.signal(await queue(desk, strategy, word, "1"))
            await desk.until_idle()
        market = "spot" if open_ is spot else "future"
        stub.book.change(market, "BTCUSDT", market_maximum=D("0.3"))
    assert [order.executed for order in stub.account.orders][1:] == [D("0.3")] * 3 + [D("0.1")]
    assert set(stub.account.counts().values()) == {1}
    assert await desk.held(strategy) == 0
    assert (await desk.signal(signal.id)).status == SignalStatus.ORDERED


@pytest.mark.parametrize("step", ["submitting", "submitted", "placed", "recording"])
async def test_killed_within_a_split_exit(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path, step: str
) -> None:
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
    stub.book.change("spot", "BTCUSDT", market_maximum=D("0.4"))
    await queue(desk, strategy, "flat")
    await killed(tmp_path, step, 2)
    if step == "submitted":
        await let_time_pass(desk)
    async with working_here(settings):
        await desk.until_idle()
    assert [order.executed for order in stub.account.orders] == [D(1), D("0.4"), D("0.4"), D("0.2")]
    assert set(stub.account.counts().values()) == {1}
    assert await desk.held(strategy) == 0


async def test_what_the_book_did_not_take_of_an_exit_is_sold_by_further_orders(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    stub.book.change("spot", "BTCUSDT", min_notional=D(2500))
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.book.filling = Filling(parts=2, expires_after=1)
    await say(strategy, "sell", "0.8")
    assert D("0.2") < await desk.held(strategy) < D("0.25")
    await say(strategy, "flat")
    assert await desk.held(strategy) < D("0.05")
    assert set(stub.account.counts().values()) == {1}


def thin(stub: StubExchange) -> None:
    """Of each market order the book takes a twentieth."""
    stub.book.filling = Filling(parts=20, expires_after=1)


async def test_people_are_told_when_parts_fill_only_a_little_and_when_the_last_name_is_used(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_order_id, "MOST_PARTS", 2)
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    thin(stub)
    await say(strategy, "flat")
    assert len(await desk.orders()) == 4
    assert [text.partition(". ")[0] for title, text in told if "does not get out" in title] == [
        "the exchange filled 0.05 of 1",
        "the exchange filled 0.0475 of 0.95",
        "3 orders did not close it: close what is left by hand",
    ]
    stub.book.filling = Filling()
    await say(strategy, "flat")
    assert await desk.held(strategy) == 0


@pytest.mark.parametrize("model", [Strategy, User])
async def test_parts_of_an_exit_end_when_the_strategy_or_its_user_is_switched_off(
    desk: Desk, stub: StubExchange, say: Say, model: type[Any]
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    thin(stub)
    await queue(desk, strategy, "flat")
    await until(lambda: has_posts(stub, 4))
    async with desk.database.transaction() as session:
        await session.execute(update(model).values(is_active=False))
    await desk.until_idle()
    order = (await desk.orders())[-1]
    assert order.state == OrderState.REJECTED
    assert order.reason == "the strategy, or its user, is switched off"
    # What a person closes by hand is closed all the same.
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        await closing.close(session, desk.user_id, position.id, "key")
    await until(lambda: has_posts(stub, 8))
    stub.book.filling = Filling()
    await desk.until_idle()
    assert await desk.held(strategy) == 0


async def test_a_split_exit_whose_row_an_earlier_version_has_ended_goes_on(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path
) -> None:
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
    stub.book.change("spot", "BTCUSDT", market_maximum=D("0.3"))
    await queue(desk, strategy, "flat")
    await killed(tmp_path, "submitting", 2)
    async with desk.database.transaction() as session:
        await session.execute(update(Order).values(updated_at=Order.updated_at - DAY))
        assert await orders.requeue_forgotten(session, 60) == []
        await session.execute(delete(OutboxRow))
        assert len(await orders.requeue_forgotten(session, 60)) == 1
        assert await orders.requeue_forgotten(session, 60) == []
    async with working_here(settings):
        await desk.until_idle()
    assert await desk.held(strategy) == 0
    assert set(stub.account.counts().values()) == {1}


async def test_a_position_that_is_worth_too_little_to_be_sold_is_dust(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    """Bought for six, and worth three by now: the exchange takes nothing below five."""
    strategy = await spot(desk)
    await say(strategy, "long", "0.00012")
    stub.book.prices["BTCUSDT"] = D(25000)
    signal = await say(strategy, "flat")
    assert signal.status == SignalStatus.NOTHING_TO_DO
    assert "is dust: 0.0002 is the least order" in (signal.status_reason or "")
    assert len(stub.posts()) == 1
    (position,) = await desk.all(Position)
    assert position.is_flat
    # It can be sold again when it is worth enough.
    stub.book.prices["BTCUSDT"] = D(50000)
    await say(strategy, "flat")
    assert await desk.held(strategy) == 0


async def test_a_position_that_is_worth_too_little_in_whole_steps_is_dust(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    """0.0000999 are worth 5.19, and the 0.00009 of it that can be sent 4.68."""
    stub.book.fee_asset = "base"
    strategy = await spot(desk)
    await say(strategy, "long", "0.0001")
    stub.book.prices["BTCUSDT"] = D(52000)
    signal = await say(strategy, "flat")
    assert signal.status == SignalStatus.NOTHING_TO_DO
    assert "is dust: 0.0001 is the least order" in (signal.status_reason or "")
    assert len(stub.posts()) == 1


async def test_what_the_exchange_finds_worth_too_little_is_dust(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    """It judges market orders by the average price of the last minutes."""
    strategy = await spot(desk)
    await say(strategy, "long", "0.0001")
    stub.book.prices["BTCUSDT"] = D(52000)
    stub.book.average_prices["BTCUSDT"] = D(49000)
    await say(strategy, "flat")
    assert len(stub.posts()) == 2
    order = (await desk.orders())[1]
    assert order.state == OrderState.CANCELLED
    assert (order.reason or "").startswith("what is left is dust")
    (position,) = await desk.all(Position)
    assert position.is_flat


async def test_a_close_by_hand_is_never_too_late_and_goes_on_until_flat(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(replace(REFUSALS[0]))
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        order = await closing.close(session, desk.user_id, position.id, "key")
        long_ago = update(Order).where(Order.id == order.id).values(created_at=Order.created_at - DAY)
        await session.execute(long_ago)
    await desk.until_idle()
    assert await desk.held(strategy) == 0


async def test_a_close_by_hand_goes_before_what_is_queued(desk: Desk, settings: Settings) -> None:
    strategy = await spot(desk)
    other = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "long", "1")
        await desk.until_idle()
    for place in (other, strategy):
        for _ in range(3):
            await queue(desk, place, "buy", "0.01")
    order = await close(desk)
    async with desk.database.transaction() as session:
        row = await outbox.claim(session)
        assert row is not None
        assert row.order_id == order.id
        # And so does the request to cancel it.
        await outbox.finish(session, row.id)
        await request_cancel(session, desk.user_id, order.id)
        row = await outbox.claim(session)
        assert row is not None
        assert (row.task, row.order_id) == ("cancel", order.id)


async def test_a_close_by_hand_overtakes_an_entry_of_unknown_fate(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(replace(SILENT))
    stub.faults.add(Fault("drop"))
    await queue(desk, strategy, "buy", "2")
    await until(lambda: has_state(desk, 1, OrderState.UNKNOWN))
    closing_order = await close(desk)
    await until(lambda: has_state(desk, 2, OrderState.FILLED))
    assert await desk.held(strategy) == 0
    stub.faults.clear()
    await desk.until_idle()
    entry = (await desk.orders())[1]
    assert entry.state == OrderState.CANCELLED
    assert entry.cancel_requested_at is not None
    assert await desk.held(strategy) == 0
    assert stub.account.counts()[closing_order.client_order_id] == 1


async def test_a_close_by_hand_of_what_has_turned_meanwhile_says_so(desk: Desk, settings: Settings) -> None:
    strategy = await future(desk)
    async with working_here(settings):
        await queue(desk, strategy, "buy", "1")
        await desk.until_idle()
    await close(desk)
    async with desk.database.transaction() as session:
        await session.execute(update(Position).values(quantity=D(-1)))
    async with working_here(settings):
        await desk.until_idle()
    order = (await desk.orders())[1]
    assert (order.state, order.attempts) == (OrderState.CANCELLED, 0)
    assert order.reason == "what is held is of the other side by now: close it again"


async def test_an_order_that_breaks_keeps_no_close_by_hand_back(
    desk: Desk, stub: StubExchange, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(replace(SILENT))
    stub.faults.add(Fault("drop"))
    await queue(desk, strategy, "buy", "2")
    await until(lambda: has_state(desk, 1, OrderState.UNKNOWN))

    async def break_down(_placer: Placer, _order_id: UUID) -> bool:
        raise ValueError("a trade of nothing")

    monkeypatch.setattr(Placer, "refresh", break_down)
    await close(desk)
    await until(lambda: has_state(desk, 2, OrderState.FILLED))
    assert await desk.held(strategy) == 0


async def test_a_close_by_hand_waits_for_an_exit_of_unknown_fate(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    """Both together would sell coins that are not the strategy's."""
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.account.balances["BTC"] += 5
    stub.faults.add(replace(SILENT))
    stub.faults.add(Fault("drop", "after"))
    await queue(desk, strategy, "flat")
    await until(lambda: has_state(desk, 1, OrderState.UNKNOWN))
    await close(desk)
    with pytest.raises(ConflictError, match="A close by hand is under way"):
        await close(desk, "another")
    await until(lambda: was_told(told, "an earlier order may still close it"))
    stub.faults.clear()
    await desk.until_idle()
    assert [order.state for order in (await desk.orders())[1:]] == [OrderState.FILLED, OrderState.CANCELLED]
    assert (await desk.orders())[2].reason == "nothing is left to close"
    assert await desk.held(strategy) == 0
    assert len(stub.posts()) == 2


async def test_a_close_by_hand_takes_the_place_of_an_exit_that_does_not_get_out(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "1")
    stub.faults.add(replace(REFUSALS[0], times=2))
    async with desk.database.transaction() as session:
        await session.execute(update(Strategy).values(max_alert_age=60))
    await queue(desk, strategy, "flat")
    await until(lambda: has_posts(stub, 2))
    await close(desk)
    await desk.until_idle()
    assert await desk.held(strategy) == 0
    assert sum(order.filled_quantity for order in (await desk.orders())[1:]) == 1


async def test_a_close_by_hand_closes_what_was_bought_since(desk: Desk, settings: Settings) -> None:
    strategy = await spot(desk)
    async with working_here(settings):
        await queue(desk, strategy, "buy", "1")
        await desk.until_idle()
    order = await close(desk)
    async with desk.database.transaction() as session:
        await session.execute(update(Position).values(quantity=D("1.5")))
    async with working_here(settings):
        await desk.until_idle()
    assert await desk.held(strategy) == 0
    closed = next(one for one in await desk.orders() if one.id == order.id)
    assert (closed.quantity, closed.filled_quantity) == (D("1.5"), D("1.5"))
