"""Booking fills on a real database: once, whoever reports them, and with their events."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import NoResultFound

from tests.conftest import Account
from tests.trading import NOON, SYMBOL, Desk, open_desk, trade
from tradingbot.core.database import Database
from tradingbot.core.logging import configure_logging
from tradingbot.core.settings import Settings
from tradingbot.events.models import StoredEvent
from tradingbot.orders.models import Fill, Order, Side
from tradingbot.positions import service
from tradingbot.positions.models import Position

D = Decimal


@pytest.fixture
async def desk(settings: Settings, account: Account) -> AsyncIterator[Desk]:
    # Many book at once: who waits for the others on a busy machine is not to give up.
    patient = {"database_pool_timeout": 60.0, "database_command_timeout": 60.0}
    database = Database(settings.model_copy(update=patient))
    yield await open_desk(database, account)
    await database.close()


async def position_of(desk: Desk, symbol: str = SYMBOL) -> Position:
    async with desk.database.transaction() as session:
        statement = select(Position).where(
            Position.strategy_id == desk.strategy_id, Position.symbol == symbol
        )
        return (await session.execute(statement)).scalar_one()


async def stored(desk: Desk, order: Order) -> Order:
    async with desk.database.transaction() as session:
        return await session.get_one(Order, order.id)


async def fills_of(desk: Desk) -> list[Fill]:
    async with desk.database.transaction() as session:
        return list((await session.execute(select(Fill).order_by(Fill.filled_at))).scalars())


async def events_of(desk: Desk) -> list[tuple[str, dict[str, Any]]]:
    async with desk.database.transaction() as session:
        statement = select(StoredEvent).where(StoredEvent.user_id == desk.user_id)
        rows = (await session.execute(statement.order_by(StoredEvent.sequence))).scalars()
        return [(row.type, row.data) for row in rows]


async def test_a_fill_changes_order_position_and_events(desk: Desk) -> None:
    order = await desk.order(quantity="2")
    assert await desk.book(order, trade("0.5", "100", fee="0.1"))
    assert await desk.book(order, trade("1.5", "104", fee="0.2", at=NOON + timedelta(seconds=1)))
    after = await stored(desk, order)
    assert (after.filled_quantity, after.average_price) == (D(2), D(103))
    assert after.state == "new"
    position = await position_of(desk)
    assert (position.quantity, position.average_price) == (D(2), D(103))
    assert (position.realised_pnl, position.fees) == (D(0), D("0.3"))
    assert (position.last_price, position.last_price_at) == (D(104), NOON + timedelta(seconds=1))
    events = await events_of(desk)
    assert [kind for kind, _ in events] == ["fill", "position", "fill", "position"]
    assert events[2][1]["quantity"] == "1.5"
    assert events[2][1]["order_id"] == str(order.id)
    assert events[3][1]["quantity"] == "2"
    assert events[3][1]["unrealised_pnl"] == "2"


async def test_a_close_realises_and_the_next_fill_opens_anew(desk: Desk) -> None:
    await desk.hold("2", "100", fee="1")
    await desk.hold("-2", "110", fee="1", at=NOON + timedelta(seconds=1))
    position = await position_of(desk)
    assert (position.quantity, position.average_price) == (D(0), D(0))
    assert (position.realised_pnl, position.fees) == (D(20), D(2))
    await desk.hold("-1", "120", at=NOON + timedelta(seconds=2))
    position = await position_of(desk)
    assert (position.quantity, position.average_price, position.realised_pnl) == (D(-1), D(120), D(20))
    assert [fill.realised_pnl for fill in await fills_of(desk)] == [D(0), D(20), D(0)]


async def test_a_trade_reported_again_is_booked_once(desk: Desk) -> None:
    order, reported = await desk.order(), trade()
    assert await desk.book(order, reported) is True
    assert await desk.book(order, reported) is False
    assert (await position_of(desk)).quantity == 1
    assert (await stored(desk, order)).filled_quantity == 1
    assert len(await events_of(desk)) == 2


async def test_the_same_trade_number_of_another_order_is_another_trade(desk: Desk) -> None:
    reported = trade(trade_id="1")
    assert await desk.book(await desk.order(), reported)
    assert await desk.book(await desk.order(), reported)
    assert (await position_of(desk)).quantity == 2


async def test_many_workers_book_the_same_trades_at_once(desk: Desk) -> None:
    orders = [await desk.order(quantity="4") for _ in range(2)]
    # Multiples of all numbers up to 8: every average on the way is exact, whichever order they come in.
    trades = [trade("1", str(840 * number), trade_id=str(number)) for number in range(1, 5)]
    work = [desk.book(order, reported) for reported in trades for order in orders for _ in range(3)]
    new = await asyncio.gather(*work)
    assert sum(new) == 8
    assert len(await fills_of(desk)) == 8
    for order in orders:
        after = await stored(desk, order)
        assert (after.filled_quantity, after.average_price) == (D(4), D(2100))
    position = await position_of(desk)
    assert (position.quantity, position.average_price) == (D(8), D(2100))


async def test_first_fills_of_two_orders_at_once_make_one_position(desk: Desk) -> None:
    orders = [await desk.order(side) for side in (Side.BUY, Side.BUY, Side.SELL, Side.BUY)]
    assert all(await asyncio.gather(*(desk.book(order, trade()) for order in orders)))
    assert (await position_of(desk)).quantity == 2


async def test_more_than_was_ordered_is_booked_and_logged(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another test of this process may have asked for errors only.
    configure_logging("info")
    order = await desk.order(quantity="1")
    assert await desk.book(order, trade("1.25"))
    assert (await stored(desk, order)).filled_quantity == D("1.25")
    assert (await position_of(desk)).quantity == D("1.25")
    assert "more was filled than ordered" in capsys.readouterr().out


async def test_what_fails_changes_nothing(desk: Desk) -> None:
    order = await desk.order()
    with pytest.raises(ValueError, match="a fill has"):
        await desk.book(order, replace(trade(), quantity=D(0)))
    order.id = uuid4()
    with pytest.raises(NoResultFound):
        await desk.book(order, trade())
    async with desk.database.transaction() as session:
        counts = [
            (await session.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (Fill, Position, StoredEvent)
        ]
    assert counts == [0, 0, 0]


async def test_changes_of_the_callers_transaction_are_kept(desk: Desk) -> None:
    order = await desk.order()
    async with desk.database.transaction() as session:
        held = await session.get_one(Order, order.id)
        held.state = "filled"
        await service.apply(session, held, trade())
        assert held.filled_quantity == 1
    assert (await stored(desk, order)).state == "filled"


async def test_an_older_trade_does_not_bring_back_its_price(desk: Desk) -> None:
    await desk.hold("1", "100", at=NOON)
    await desk.hold("1", "90", at=NOON - timedelta(seconds=1))
    assert (await position_of(desk)).last_price == 100


async def test_a_signals_price_is_the_last_known_one_until_a_newer_is_met(desk: Desk) -> None:
    await desk.hold("2", "100", at=NOON)
    await desk.hold("5", "7", symbol="ETHUSDT", at=NOON)
    for price, seconds, expected in (("110", 5, "110"), ("90", 4, "110"), ("120", 6, "120")):
        async with desk.database.transaction() as session:
            await service.mark(session, desk.strategy_id, SYMBOL, D(price), NOON + timedelta(seconds=seconds))
        position = await position_of(desk)
        assert (position.last_price, position.last_price_source) == (D(expected), "signal")
    assert (await position_of(desk, "ETHUSDT")).last_price == 7
    async with desk.database.transaction() as session:
        await service.mark(session, desk.strategy_id, "UNKNOWN", D(1), NOON)
        assert await service.unrealised_of(session, desk.strategy_id, SYMBOL, None) == 40
        assert await service.unrealised_of(session, desk.strategy_id, SYMBOL, D(95)) == -10
        assert await service.unrealised_of(session, desk.strategy_id, "ETHUSDT", D(8)) == 45


async def test_a_price_does_not_wait_for_a_position_that_is_being_changed(desk: Desk) -> None:
    order = await desk.hold("1", "100")
    async with desk.database.transaction() as booking:
        await service.apply(booking, order, trade("1", "101", at=NOON + timedelta(seconds=1)))
        async with asyncio.timeout(5), desk.database.transaction() as session:
            await service.mark(session, desk.strategy_id, SYMBOL, D(50), NOON + timedelta(seconds=9))
    assert (await position_of(desk)).last_price == 101


async def test_open_orders_count_as_filled(desk: Desk) -> None:
    async def expected(symbol: str = SYMBOL) -> Decimal:
        async with desk.database.transaction() as session:
            return await service.expected_quantity(session, desk.strategy_id, symbol)

    assert await expected() == 0
    await desk.hold("3")
    assert await expected() == 3
    await desk.order(quantity="2", state="unknown")
    part = await desk.order(Side.SELL, "4", state="partially_filled")
    await desk.book(part, trade("1"))
    for state in ("filled", "cancelled", "rejected"):
        await desk.order(quantity="100", state=state)
    await desk.order(quantity="50", symbol="ETHUSDT")
    # Held 3 - 1, still to come 2 - 3.
    assert await expected() == 1
    over = await desk.order(quantity="1", state="submitted")
    await desk.book(over, trade("1.5"))
    assert await expected() == D("2.5")
    assert await expected("ETHUSDT") == 50
