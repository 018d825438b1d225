"""What we think and what an exchange says: open orders, late fills, positions."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, update

from tests.desk import SYMBOL, Desk, open_desk
from tests.fake_exchange import Bench, FakeExchange, open_bench
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import CredentialsError, OrderReport, RejectedError
from tradingbot.orders import repository, service
from tradingbot.orders.models import Order, OrderState
from tradingbot.outbox.models import OutboxRow

D = Decimal
HALF = D("0.005")


# Connecting may take its time on a busy machine: nothing here is about that.
pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    quick = {
        "WORKER_RETRY_DELAY": "0.02",
        "WORKER_RETRY_LONGEST": "0.1",
        "EXCHANGE_TIMEOUT": "30",
        "RECONCILE_INTERVAL": "0.001",
        "RECONCILE_POSITIONS_INTERVAL": "0.001",
    }
    for name, value in quick.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as desk:
        yield desk


@pytest.fixture
async def bench(desk: Desk, settings: Settings) -> AsyncIterator[Bench]:
    async with open_bench(desk, settings) as bench:
        yield bench


async def change(desk: Desk, **values: Any) -> None:
    async with desk.database.transaction() as session:
        await session.execute(update(Order).values(**values))


async def placed(desk: Desk, bench: Bench, word: str, **columns: Any) -> Order:
    """Places an order of 0.01 on a real account, and gives it as it is then."""
    bench.exchange.script.append(word)
    strategy = await desk.strategy(await desk.account())
    await desk.queue(strategy, **columns)
    await bench.work()
    return (await desk.orders())[-1]


async def cancel(desk: Desk, order: Order) -> None:
    async with desk.database.transaction() as session:
        await service.request_cancel(session, desk.user_id, order.id)


async def state(desk: Desk, order_id: UUID) -> tuple[str, Decimal]:
    (order,) = await desk.all(Order, Order.id == order_id)
    return order.state, order.filled_quantity


async def test_an_open_order_is_followed_to_its_end(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "open")
    assert await state(desk, order.id) == (OrderState.SUBMITTED, D(0))
    bench.exchange.fill(order.client_order_id, HALF / 5, OrderState.PARTIALLY_FILLED)
    await bench.reconciler.round()
    assert await state(desk, order.id) == (OrderState.PARTIALLY_FILLED, HALF / 5)
    bench.exchange.fill(order.client_order_id, HALF, OrderState.PARTIALLY_FILLED)
    await bench.reconciler.round()
    await bench.reconciler.round()
    assert await state(desk, order.id) == (OrderState.PARTIALLY_FILLED, HALF * 6 / 5)
    bench.exchange.fill(order.client_order_id, HALF * 4 / 5)
    await bench.reconciler.round()
    assert await state(desk, order.id) == (OrderState.FILLED, HALF * 2)
    assert await desk.held(order.strategy_id) == HALF * 2
    assert len(bench.exchange.sent) == 1
    assert bench.told.kinds() == ["fill"] * 3


async def test_an_order_that_the_exchange_ends_keeps_what_was_filled(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "partial")
    report = bench.exchange.books[order.client_order_id]
    for end in (OrderState.REJECTED, OrderState.CANCELLED):
        bench.exchange.books[order.client_order_id] = OrderReport(
            report.client_order_id, report.exchange_order_id, end, report.trades, "no more to be had"
        )
        await bench.reconciler.round()
    assert await state(desk, order.id) == (OrderState.CANCELLED, HALF)
    assert (await desk.order()).reason == "no more to be had"


async def test_a_cancel_is_carried_out_by_the_worker_once(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "partial")
    await cancel(desk, order)
    await cancel(desk, order)
    await bench.work()
    assert await state(desk, order.id) == (OrderState.CANCELLED, HALF)
    await bench.reconciler.round()
    assert bench.exchange.cancelled == [order.client_order_id]
    assert await desk.held(order.strategy_id) == HALF


async def test_a_cancel_that_the_exchange_does_not_answer_is_repeated(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "partial")
    await cancel(desk, order)
    bench.exchange.questions.extend(["not_sent", "nonsense"])
    await bench.work()
    assert (await state(desk, order.id))[0] == OrderState.PARTIALLY_FILLED
    await bench.reconciler.round()
    await bench.reconciler.round()
    assert (await state(desk, order.id))[0] == OrderState.CANCELLED


async def test_a_cancel_before_it_was_sent_is_never_sent(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "not_sent")
    first = len(bench.exchange.sent)
    bench.exchange.script.append("not_sent")
    await desk.queue(order.strategy_id)
    await bench.turn()
    waiting = (await desk.orders())[-1]
    assert waiting.state == OrderState.NEW
    await cancel(desk, waiting)
    await bench.work()
    assert await state(desk, waiting.id) == (OrderState.CANCELLED, D(0))
    assert len(bench.exchange.sent) == first + 1


async def test_a_cancel_of_an_order_whose_fate_is_unknown_waits_for_it(desk: Desk, bench: Bench) -> None:
    bench.exchange.script.append("lost")
    strategy = await desk.strategy(await desk.account())
    await desk.queue(strategy)
    await bench.turn()
    order = await desk.order()
    assert order.state == OrderState.UNKNOWN
    await cancel(desk, order)
    await bench.work()
    assert await state(desk, order.id) == (OrderState.FILLED, HALF * 2)
    assert bench.exchange.taken == [order.client_order_id]


async def test_fills_that_come_after_the_end_are_booked(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "partial")
    await cancel(desk, order)
    await bench.work()
    bench.exchange.fill(order.client_order_id, HALF)
    await bench.reconciler.round()
    assert await state(desk, order.id) == (OrderState.CANCELLED, HALF * 2)
    assert await desk.held(order.strategy_id) == HALF * 2


async def test_an_order_that_the_exchange_forgot_is_over_and_told(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "partial")
    bench.exchange.books.clear()
    # Ahead of the clock, however long a busy machine takes to look at it.
    await change(desk, submitted_at=func.now() + timedelta(seconds=3600))
    await bench.reconciler.round()
    assert (await state(desk, order.id))[0] == OrderState.PARTIALLY_FILLED, "it may not be shown yet"
    await change(desk, submitted_at=Order.submitted_at - timedelta(seconds=3660))
    await bench.reconciler.round()
    assert await state(desk, order.id) == (OrderState.CANCELLED, HALF)
    assert bench.told.kinds() == ["fill", "failure"]
    assert len(bench.exchange.sent) == 1


@pytest.mark.parametrize("stored", ["new", "submitted", "unknown"])
async def test_an_order_that_nobody_came_back_to_is_taken_up_again(
    desk: Desk, bench: Bench, stored: str
) -> None:
    order = await placed(desk, bench, "dropped", action="sell")
    await change(
        desk,
        state=stored,
        exchange_order_id=None,
        attempts=0 if stored == "new" else 1,
        submitted_at=None if stored == "new" else Order.submitted_at - timedelta(seconds=200),
    )
    del bench.exchange.books[order.client_order_id]
    bench.exchange.taken.clear()
    await bench.reconciler.round()
    assert await desk.is_idle(), "somebody may be about to"
    await change(desk, updated_at=Order.updated_at - timedelta(seconds=121))
    await bench.reconciler.round()
    await bench.reconciler.round()
    (row,) = await desk.all(OutboxRow)
    assert (row.task, row.order_id) == ("order", order.id)
    await bench.work()
    assert (await state(desk, order.id))[0] == OrderState.FILLED
    assert bench.exchange.taken == [order.client_order_id]


async def test_orders_that_always_fail_do_not_keep_others_from_being_asked_about(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await desk.account()
    for number in range(6):
        bench.exchange.script.append("open")
        await desk.queue(await desk.strategy(account), quantity=D(number + 1))
    await bench.work()
    broken = bench.exchange.taken[:-1]
    original = bench.exchange.find

    async def find(client_order_id: str, symbol: str) -> OrderReport | None:
        if client_order_id in broken:
            raise RejectedError("there is no such market any more")
        return await original(client_order_id, symbol)

    monkeypatch.setattr(bench.exchange, "find", find)
    bench.exchange.fill(bench.exchange.taken[-1], D(6))
    for _ in range(100):
        await bench.reconciler.round()
        if (await desk.orders())[-1].state == OrderState.FILLED:
            break
    assert [order.state for order in await desk.orders()] == ["submitted"] * 5 + ["filled"]


async def test_what_cannot_be_booked_does_not_keep_others_from_being_booked(desk: Desk, bench: Bench) -> None:
    first, second = await placed(desk, bench, "open"), await placed(desk, bench, "open")
    bench.exchange.fill(first.client_order_id, D(-1))
    bench.exchange.fill(second.client_order_id, HALF * 2)
    await bench.reconciler.round()
    assert await state(desk, first.id) == (OrderState.SUBMITTED, D(0))
    assert await state(desk, second.id) == (OrderState.FILLED, HALF * 2)


@pytest.mark.parametrize("error", [CredentialsError("revoked"), RejectedError("away")])
async def test_an_account_that_cannot_be_asked_does_not_keep_others_from_it(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    orders = [await placed(desk, bench, "open") for _ in range(3)]
    bad, other = FakeExchange(), bench.exchange

    async def find(_client_order_id: str, _symbol: str) -> OrderReport | None:
        raise error

    monkeypatch.setattr(bad, "find", find)
    for order in orders:
        bench.exchange.fill(order.client_order_id, HALF * 2)
    await bench.exchanges.close()
    monkeypatch.setattr(
        bench.exchanges,
        "_opener",
        lambda account: bad if account.id == orders[0].exchange_account_id else other,
    )
    await bench.reconciler.round()
    assert [(await state(desk, order.id))[0] for order in orders] == ["submitted", "filled", "filled"]


async def test_one_at_a_time_asks_about_an_account(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "open")
    bench.exchange.fill(order.client_order_id, HALF * 2)
    async with desk.database.transaction() as session:
        assert await repository.try_lock_account(session, order.exchange_account_id)
        await bench.reconciler.round()
        assert (await state(desk, order.id))[0] == OrderState.SUBMITTED
    await bench.reconciler.round()
    assert (await state(desk, order.id))[0] == OrderState.FILLED


async def test_a_position_that_differs_is_told_once_and_never_traded_away(desk: Desk, bench: Bench) -> None:
    order = await placed(desk, bench, "fill")
    rounds: list[tuple[Decimal | None, int]] = [
        (None, 0),
        (HALF * 2, 0),
        # A fill may be on its way.
        (HALF, 0),
        (HALF * 2, 0),
        (HALF, 0),
        (HALF, 1),
        (HALF, 1),
        # The same difference, of another size.
        (D(0), 1),
        (D(0), 1),
        # It agrees again.
        (HALF * 2, 1),
        (HALF * 2, 1),
        (D(0), 1),
        (D(0), 2),
    ]
    for holds, told in rounds:
        bench.exchange.holds = holds
        await bench.reconciler.round()
        assert bench.told.kinds().count("failure") == told, holds
    _kind, title, words = bench.told.messages[-1]
    assert title == f"{SYMBOL}: position differs"
    assert "holds 0 BTCUSDT, and the book says 0.01" in words
    assert len(bench.exchange.sent) == 1
    assert await desk.held(order.strategy_id) == HALF * 2


async def test_positions_of_an_account_are_compared_together_and_not_while_orders_are_open(
    desk: Desk, bench: Bench
) -> None:
    account = await desk.account()
    for action in ("buy", "buy", "sell"):
        await desk.queue(await desk.strategy(account), action)
    await bench.work()
    bench.exchange.holds = HALF * 2
    for _ in range(3):
        await bench.reconciler.round()
    assert "failure" not in bench.told.kinds()
    bench.exchange.holds = D(7)
    bench.exchange.script.append("open")
    await desk.queue(await desk.strategy(account), "buy")
    await bench.work()
    for _ in range(3):
        await bench.reconciler.round()
    assert "failure" not in bench.told.kinds()


async def test_a_symbol_that_cannot_be_asked_for_does_not_keep_others_from_being_compared(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = await desk.strategy(await desk.account())
    for symbol in ("ETHUSDT", SYMBOL, "BNBUSDT"):
        await desk.queue(strategy, symbol=symbol)
    await bench.work()
    asked: list[str] = []

    async def holding(symbol: str) -> Decimal | None:
        asked.append(symbol)
        if symbol == asked[0]:
            raise RejectedError("there is no such market any more")
        return D(0)

    monkeypatch.setattr(bench.exchange, "holding", holding)
    for _ in range(2):
        await bench.reconciler.round()
    told = {title for kind, title, _text in bench.told.messages if kind == "failure"}
    assert told == {f"{symbol}: position differs" for symbol in set(asked) - {asked[0]}}
    assert len(told) == 2
