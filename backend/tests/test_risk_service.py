"""What the rules are asked with, from a real database, and what is stored of a refusal."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text

from tests.conftest import Account, make_account
from tests.trading import NOON, SYMBOL, Desk, open_desk
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.events.models import StoredEvent
from tradingbot.orders.models import Side
from tradingbot.positions.models import Position
from tradingbot.risk import halts, service
from tradingbot.risk.evaluate import RefusalReason, RiskInput, evaluate
from tradingbot.risk.halts import Target
from tradingbot.risk.models import Refusal, Rule
from tradingbot.risk.sizing import OrderIntent
from tradingbot.strategies.models import Strategy

D = Decimal
HUNDRED = D(100)
ONE = OrderIntent(Side.BUY, D(1), reduce_only=False)


@pytest.fixture
async def desk(settings: Settings, account: Account) -> AsyncIterator[Desk]:
    database = Database(settings)
    yield await open_desk(database, account)
    await database.close()


async def load(
    desk: Desk,
    intent: OrderIntent | None = ONE,
    price: Decimal | None = HUNDRED,
    now: datetime = NOON,
    symbol: str = SYMBOL,
) -> RiskInput:
    signal = await desk.signal(symbol=symbol)
    async with desk.database.transaction() as session:
        strategy = await session.get_one(Strategy, desk.strategy_id)
        return await service.load_input(session, strategy, signal, intent, price, now)


async def test_the_strategys_limits_and_its_position_are_asked(desk: Desk) -> None:
    await desk.change(
        symbols=[SYMBOL], max_position=D(5), max_order_value=D(1000), max_daily_loss=D(50), is_active=False
    )
    await desk.hold("3")
    await desk.order(quantity="1", state="submitted")
    given = await load(desk, OrderIntent(Side.SELL, D(2), reduce_only=True))
    assert (given.symbol, given.change, given.price, given.position) == (SYMBOL, D(-2), D(100), D(4))
    assert (given.symbols, given.max_position, given.max_order_value) == ((SYMBOL,), D(5), D(1000))
    assert (given.max_daily_loss, given.strategy_active, given.halt) == (D(50), False, None)


async def test_without_an_order_only_the_switches_are_asked(desk: Desk) -> None:
    await desk.change(symbols=["OTHER"], max_position=D("0.1"))
    given = await load(desk, None, None)
    assert given.change is None
    assert evaluate(given) is None
    async with desk.database.transaction() as session:
        await halts.switch_on(session, Target(desk.user_id, desk.strategy_id), "maintenance")
    assert evaluate(await load(desk, None, None)) == RefusalReason(
        Rule.HALTED, "new entries of the strategy are halted: maintenance"
    )


async def test_the_farthest_reaching_halt_is_named_and_those_of_others_are_not(
    desk: Desk, settings: Settings
) -> None:
    stranger = await open_desk(desk.database, await make_account(settings, "other@mail.test"))
    steps = [
        (Target(stranger.user_id), None),
        (Target(stranger.user_id, stranger.strategy_id), None),
        (Target(desk.user_id, desk.strategy_id), "new entries of the strategy are halted"),
        (Target(desk.user_id), "all of your new entries are halted"),
        (Target(), "new entries are halted for everybody"),
    ]
    for target, expected in steps:
        async with desk.database.transaction() as session:
            await halts.switch_on(session, target, None)
        assert (await load(desk)).halt == expected
    async with desk.database.transaction() as session:
        assert await halts.switch_off(session, Target())


async def test_the_days_result_is_that_of_its_utc_day_and_of_this_strategy(
    desk: Desk, settings: Settings
) -> None:
    await desk.change(max_daily_loss=D(1000))
    midnight = datetime(2026, 1, 5, tzinfo=UTC)
    await desk.hold("3", "100", fee="1", at=midnight - timedelta(days=3))
    await desk.hold("-1", "90", fee="2", at=midnight - timedelta(microseconds=1))
    await desk.hold("-1", "80", fee="4", at=midnight)
    await desk.hold("2", "10", fee="8", symbol="ETHUSDT", at=NOON)
    await desk.hold("-1", "11", fee="16", symbol="ETHUSDT", at=NOON)
    stranger = await open_desk(desk.database, await make_account(settings, "other@mail.test"))
    await stranger.hold("1", "100", fee="500", at=NOON)
    given = await load(desk, price=D(70))
    # Today: lost 20, made 1. Still held: 1 BTCUSDT at 100, now 70, and 1 ETHUSDT at 10, last 11.
    assert (given.realised_today, given.fees_today, given.unrealised) == (D(-19), D(28), D(-29))
    # 02:00 in a zone that is three hours ahead is still yesterday.
    local = datetime.fromisoformat("2026-01-05T02:00:00+03:00")
    given = await load(desk, price=None, now=local)
    # The last known price of BTCUSDT is that of the signal above.
    assert (given.realised_today, given.fees_today, given.unrealised) == (D(-29), D(30), D(-29))
    tomorrow = await load(desk, now=midnight + timedelta(days=1), price=D(70))
    assert (tomorrow.realised_today, tomorrow.fees_today) == (D(0), D(0))


async def test_without_a_loss_limit_the_fills_are_not_added_up(desk: Desk) -> None:
    await desk.hold("1", "100", fee="5")
    given = await load(desk, price=D(1))
    assert (given.realised_today, given.fees_today, given.unrealised) == (D(0), D(0), D(0))


async def test_orders_of_the_last_60_seconds_count_by_the_databases_clock(
    desk: Desk, settings: Settings
) -> None:
    await desk.change(max_orders_per_minute=2)
    for _ in range(3):
        await desk.order(state="filled")
    stranger = await open_desk(desk.database, await make_account(settings, "other@mail.test"))
    await stranger.order()
    # What this process takes for the time does not matter.
    assert (await load(desk, now=NOON + timedelta(days=900))).orders_last_minute == 3
    for seconds, expected in ((61, 2), (30, 3)):
        async with desk.database.transaction() as session:
            await session.execute(
                text(
                    "UPDATE orders SET created_at = now() - make_interval(secs => :seconds) WHERE id ="
                    " (SELECT id FROM orders WHERE strategy_id = :strategy ORDER BY created_at LIMIT 1)"
                ),
                {"seconds": seconds, "strategy": desk.strategy_id},
            )
        assert (await load(desk)).orders_last_minute == expected
    refusal = evaluate(await load(desk))
    assert refusal == RefusalReason(Rule.MAX_ORDERS_PER_MINUTE, "3 orders in the last 60 seconds, limit 2")


async def test_the_signals_price_is_noted(desk: Desk) -> None:
    await desk.hold("1", "100")
    await load(desk, price=D(110), now=NOON + timedelta(seconds=1))
    await load(desk, price=D(0), now=NOON + timedelta(seconds=2))
    await load(desk, price=None, now=NOON + timedelta(seconds=3))
    async with desk.database.transaction() as session:
        position = (await session.execute(select(Position))).scalar_one()
    assert (position.last_price, position.last_price_at) == (D(110), NOON + timedelta(seconds=1))


async def test_a_refusal_is_stored_once_with_its_event(desk: Desk) -> None:
    signal = await desk.signal()
    for rule, new in ((Rule.MAX_POSITION, True), (Rule.HALTED, False)):
        async with desk.database.transaction() as session:
            reason = RefusalReason(rule, "position would be 1.2 BTCUSDT, limit 1" + "!" * 900)
            assert await service.store_refusal(session, signal, reason) is new
    async with desk.database.transaction() as session:
        refusal = (await session.execute(select(Refusal))).scalar_one()
        event = (await session.execute(select(StoredEvent))).scalar_one()
    assert (refusal.signal_id, refusal.rule, len(refusal.reason)) == (signal.id, "max_position", 500)
    assert (event.type, event.data["id"], event.data["symbol"]) == ("refusal", str(refusal.id), SYMBOL)
