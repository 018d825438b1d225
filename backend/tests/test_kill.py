"""kill -9 at every step between claim and fill: no order lost, none doubled, by the exchange's own count."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import update

import tradingbot
from tests.conftest import execute
from tests.desk import Desk, open_desk, running_worker, until, working_here
from tests.stub_exchange import Fault, Filling, StubExchange
from tradingbot.core.settings import Settings
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import Order, OrderState
from tradingbot.orders.service import request_cancel
from tradingbot.positions import closing
from tradingbot.positions.models import Position
from tradingbot.signals.models import SignalStatus

STEPS = [
    "claimed",
    "taken",
    "priced",
    "deciding",
    "decided",
    "submitting",
    "submitted",
    "placed",
    "recording",
    "recorded",
    "finishing",
    "finished",
]
# The exchange took the order and the answer was lost: what comes then, and which time it is that it comes.
STEPS_AFTER_A_LOST_ANSWER = [
    ("finishing", 1),
    ("finished", 1),
    ("claimed", 2),
    ("taken", 2),
    ("found", 1),
    ("recording", 1),
    ("recorded", 1),
    ("finishing", 2),
]
# Where an order differs from a signal, or paper from an exchange.
STEPS_OF_AN_ORDER = ["submitting", "submitted", "placed", "recording"]
QUANTITY = Decimal("0.01")


@pytest.fixture
async def stub(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StubExchange]:
    async with StubExchange() as stub:
        variables = {
            "EXCHANGE_BASE_URL": stub.url,
            "WORKER_HEALTH_FILE": str(tmp_path / "alive"),
            "WORKER_RETRY_DELAY": "0.2",
            "RECONCILE_INTERVAL": "0.5",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield stub


@pytest.fixture
def settings(stub: StubExchange) -> Settings:
    return Settings()


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as desk:
        yield desk


async def killed(tmp_path: Path, step: str, time: int = 1) -> None:
    """Runs a worker until it kills itself; it does not reconcile, which could come before the step."""
    never = {"RECONCILE_INTERVAL": "600"}
    async with running_worker(tmp_path, step, str(time), wait=False, **never) as worker:
        assert await worker.ended() == -signal.SIGKILL, worker.log.read_text()


async def let_time_pass(desk: Desk) -> None:
    """Makes PostgreSQL believe that what was sent was sent long ago: a request cannot arrive any more."""
    async with desk.database.transaction() as session:
        await session.execute(update(Order).values(submitted_at=Order.submitted_at - timedelta(minutes=1)))


async def assert_traded_once(desk: Desk, stub: StubExchange) -> None:
    order = await desk.order()
    assert order.state == OrderState.FILLED
    assert order.filled_quantity == QUANTITY
    assert stub.account.counts() == {order.client_order_id: 1}
    assert len(await desk.fills()) == 1
    assert await desk.held(order.strategy_id) == QUANTITY


def test_no_step_is_left_out() -> None:
    sources = Path(tradingbot.__file__).parent.rglob("*.py")
    named = {name for path in sources for name in re.findall(r'_steps\("(\w+)"\)', path.read_text())}
    assert named == {*STEPS, *(step for step, _time in STEPS_AFTER_A_LOST_ANSWER)}


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path, step: str
) -> None:
    strategy = await desk.strategy(await desk.account())
    signal_id = await desk.queue(strategy)
    await killed(tmp_path, step)
    if step == "submitted":
        await let_time_pass(desk)
    async with working_here(settings):
        await desk.until_idle()
    await assert_traded_once(desk, stub)
    assert (await desk.signal(signal_id)).status == SignalStatus.ORDERED
    told = [(event["id"], event["status"]) for event in await desk.events("signal")]
    assert told == [(str(signal_id), "queued"), (str(signal_id), "ordered")]


@pytest.mark.parametrize(("step", "time"), STEPS_AFTER_A_LOST_ANSWER)
async def test_killed_while_it_finds_out_what_became_of_an_order(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path, step: str, time: int
) -> None:
    await desk.queue(await desk.strategy(await desk.account(market=Market.FUTURE, mode=Mode.DEMO)))
    stub.faults.add(Fault("drop", "after"))
    await killed(tmp_path, step, time)
    async with working_here(settings):
        await desk.until_idle()
    await assert_traded_once(desk, stub)
    assert len(stub.posts()) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_while_the_order_is_on_its_way(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path, when: str
) -> None:
    """The exchange has it, or gets it when nobody waits for the answer any more."""
    await desk.queue(await desk.strategy(await desk.account()))
    stub.faults.add({"action": "delay", "when": when, "seconds": 2})
    async with running_worker(tmp_path, wait=False) as worker:
        await until_posted(stub)
        worker.kill()
    async with working_here(settings):
        await desk.until_idle()
    await assert_traded_once(desk, stub)
    assert len(stub.posts()) == 1


@pytest.mark.parametrize("step", STEPS_OF_AN_ORDER)
async def test_killed_at_a_step_of_a_close_by_hand(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path, step: str
) -> None:
    strategy = await desk.strategy(await desk.account())
    await desk.queue(strategy)
    async with working_here(settings):
        await desk.until_idle()
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        await closing.close(session, desk.user_id, position.id, "key")
    await killed(tmp_path, step)
    if step == "submitted":
        await let_time_pass(desk)
    async with working_here(settings):
        await desk.until_idle()
    opened, closed = await desk.orders()
    assert closed.state == OrderState.FILLED
    assert stub.account.counts() == {opened.client_order_id: 1, closed.client_order_id: 1}
    assert await desk.held(strategy) == 0


@pytest.mark.parametrize("step", ["claimed", "recording", "recorded", "finishing"])
async def test_killed_at_a_step_of_a_cancel(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path, step: str
) -> None:
    stub.book.filling = Filling("manual", parts=2)
    await desk.queue(await desk.strategy(await desk.account()))
    async with working_here(settings):
        await desk.until_idle()
    order = await desk.order()
    stub.fill(order.client_order_id)
    async with desk.database.transaction() as session:
        await request_cancel(session, desk.user_id, order.id)
    await killed(tmp_path, step)
    async with working_here(settings):
        await desk.until_idle()
        await until(desk.is_over)
    order = await desk.order()
    assert (order.state, order.filled_quantity) == (OrderState.CANCELLED, QUANTITY / 2)
    assert await desk.held(order.strategy_id) == QUANTITY / 2
    assert len(stub.posts()) == 1


@pytest.mark.parametrize("step", STEPS_OF_AN_ORDER)
async def test_killed_on_paper(desk: Desk, settings: Settings, tmp_path: Path, step: str) -> None:
    strategy = await desk.strategy()
    await desk.queue(strategy)
    await killed(tmp_path, step)
    async with working_here(settings):
        await desk.until_idle()
    order = await desk.order()
    assert (order.state, order.filled_quantity) == (OrderState.FILLED, QUANTITY)
    assert len(await desk.fills()) == 1
    assert await desk.held(strategy) == QUANTITY


async def test_the_database_drops_every_connection_while_an_order_is_on_its_way(
    desk: Desk, stub: StubExchange, settings: Settings, owner_url: str
) -> None:
    """The claim is gone with its connection: another takes the row while the answer is still to come."""
    await desk.queue(await desk.strategy(await desk.account()))
    stub.faults.add(Fault("delay", "after", seconds=1))
    async with working_here(settings), working_here(settings):
        await until_posted(stub)
        drop = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename <> current_user"
        )
        # The test's own are not to be among them.
        await desk.database.engine.dispose()
        await asyncio.to_thread(execute, owner_url, drop)
        await desk.until_idle()
    await assert_traded_once(desk, stub)
    assert len(stub.posts()) == 1


async def test_two_workers_a_bad_exchange_and_a_kill(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path
) -> None:
    """Many signals, several strategies, all kinds of faults, and one of three workers is killed."""
    stub.book.filling = Filling("timed", parts=3, interval=0.02)
    accounts = [await desk.account(), await desk.account(market=Market.FUTURE, mode=Mode.DEMO)]
    strategies = [[await desk.strategy(account) for _ in range(3)] for account in accounts]
    signals = [
        await desk.queue(strategy, "sell" if number % 3 == 2 else "buy")
        for number in range(6)
        for group in strategies
        for strategy in group
    ]
    killing = asyncio.create_task(killed(tmp_path, "placed"))
    # Before the others can take all the work, and before anything can go wrong with its first order.
    await until_posted(stub)
    for fault in (
        Fault("drop", "after", times=4),
        Fault("answer", "after", status=503, times=3),
        Fault("answer", "after", status=504, code=None, times=2),
        Fault("answer", status=429, code=-1003, retry_after=0, times=2),
        Fault("drop", method="GET", path="/order", times=3),
    ):
        stub.faults.add(fault)
    async with working_here(settings), working_here(settings):
        await killing
        await desk.until_idle()
        await until(desk.is_over)
    orders = await desk.orders()
    assert Counter(order.signal_id for order in orders) == Counter(signals)
    assert {order.state for order in orders} == {OrderState.FILLED}
    assert stub.account.counts() == Counter(order.client_order_id for order in orders)
    for group, market in zip(strategies, Market, strict=True):
        ours = [await desk.held(strategy) for strategy in group]
        theirs = [order for order in stub.account.orders if order.symbol.market == market]
        assert sum(ours) == sum(order.sign * order.executed for order in theirs) == QUANTITY * 3 * 2


async def until_posted(stub: StubExchange) -> None:
    async with asyncio.timeout(60):
        await stub.came("/order")
