"""From a queued signal to an order, with an exchange that misbehaves by a script."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from tests.desk import SYMBOL, Desk, open_desk, working_here
from tests.fake_exchange import Bench, FakeExchange, open_bench
from tests.stub_exchange import StubExchange
from tradingbot.core.settings import Settings
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.orders.models import Order, OrderState, Side
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions.models import Position
from tradingbot.risk import halts
from tradingbot.risk.halts import EVERYBODY, Target
from tradingbot.risk.models import Refusal, Rule
from tradingbot.signals.models import SignalStatus
from tradingbot.strategies import service as strategies
from tradingbot.strategies.models import Strategy
from tradingbot.strategies.schemas import StrategyChanges
from tradingbot.users.models import User
from tradingbot.worker.main import opener

# Connecting may take its time on a busy machine: nothing here is about that.
pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    quick = {"WORKER_RETRY_DELAY": "0.02", "WORKER_RETRY_LONGEST": "0.1", "EXCHANGE_TIMEOUT": "2"}
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


async def test_a_signal_becomes_an_order_and_a_position(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    signal_id = await desk.queue(strategy)
    await bench.work()
    order = await desk.order()
    assert (order.state, order.signal_id, order.attempts) == (OrderState.FILLED, signal_id, 1)
    assert order.exchange_order_id == "x1"
    (sent,) = bench.exchange.sent
    assert (sent.client_order_id, sent.quantity) == (order.client_order_id, Decimal("0.01"))
    assert sent.issued_at is not None
    signal = await desk.signal(signal_id)
    assert signal.status == SignalStatus.ORDERED
    assert signal.processed_at is not None
    assert await desk.held(strategy) == Decimal("0.01")
    assert [event["state"] for event in await desk.events("order")] == ["new", "submitted", "filled"]
    assert bench.told.kinds() == ["fill"]


async def test_the_account_is_the_users_default_if_the_strategy_has_none(desk: Desk, bench: Bench) -> None:
    await desk.queue(await desk.strategy())
    await bench.work()
    (account,) = await desk.all(ExchangeAccount)
    assert (account.mode, account.is_default) == (Mode.PAPER, True)
    assert (await desk.order()).exchange_account_id == account.id


async def change(desk: Desk, model: type[Any], **values: Any) -> None:
    async with desk.database.transaction() as session:
        await session.execute(update(model).values(**values))


async def refused(desk: Desk, bench: Bench, strategy: Any, **columns: Any) -> str:
    signal_id = await desk.queue(strategy, **columns)
    await bench.work()
    assert bench.exchange.sent == []
    assert (await desk.signal(signal_id)).status == SignalStatus.REFUSED
    assert [event["signal_id"] for event in await desk.events("refusal")] == [str(signal_id)]
    assert bench.told.kinds() == ["refusal"]
    return (await desk.refusal(signal_id)).rule


async def test_strategy_off(desk: Desk, bench: Bench) -> None:
    assert await refused(desk, bench, await desk.strategy(is_active=False)) == Rule.STRATEGY_OFF


async def test_user_off(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    await change(desk, User, is_active=False)
    assert await refused(desk, bench, strategy) == Rule.STRATEGY_OFF


async def test_halted(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    async with desk.database.transaction() as session:
        await halts.switch_on(session, Target(desk.user_id, strategy), "lunch")
    assert await refused(desk, bench, strategy) == Rule.HALTED


async def test_live_is_refused_while_testnet_is_on(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy(await desk.account(mode=Mode.LIVE))
    assert await refused(desk, bench, strategy) == Rule.LIVE_FORBIDDEN


async def test_symbol_that_is_not_allowed(desk: Desk, bench: Bench) -> None:
    assert await refused(desk, bench, await desk.strategy(symbols=["ETHUSDT"])) == Rule.SYMBOL


async def test_size_that_is_not_known(desk: Desk, bench: Bench) -> None:
    assert await refused(desk, bench, await desk.strategy(), quantity=None) == Rule.NO_QUANTITY


async def test_price_that_nobody_knows(desk: Desk, bench: Bench) -> None:
    bench.exchange.last_price = None
    assert await refused(desk, bench, await desk.strategy(), price=None) == Rule.NO_PRICE


@pytest.mark.parametrize("price", [None, Decimal(0), Decimal(1), Decimal(10**9)])
async def test_the_exchanges_price_counts_and_not_the_alerts(
    desk: Desk, bench: Bench, price: Decimal | None
) -> None:
    bench.exchange.prices.extend(["not_sent", "not_sent"])
    strategy = await desk.strategy(max_order_value=Decimal(500), sizing="fixed_quote", sizing_value=500)
    await desk.queue(strategy, price=price)
    await bench.work()
    order = await desk.order()
    assert (order.price, order.quantity) == (Decimal(50000), Decimal("0.01"))


async def test_a_made_up_price_does_not_get_by_a_limit(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy(max_order_value=Decimal(500))
    columns = {"quantity": Decimal(100), "price": Decimal("0.01")}
    assert await refused(desk, bench, strategy, **columns) == Rule.MAX_ORDER_VALUE


async def test_the_alerts_price_counts_where_the_exchange_has_none(desk: Desk, bench: Bench) -> None:
    bench.exchange.last_price = None
    await desk.queue(await desk.strategy(), price=Decimal(123))
    await bench.work()
    assert (await desk.order()).price == Decimal(123)


async def test_a_way_out_does_not_wait_for_a_price(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    await desk.queue(strategy)
    await bench.work()
    bench.exchange.prices.extend(["not_sent"] * 99)
    await desk.queue(strategy, "close", price=Decimal(123))
    await bench.work()
    assert await desk.held(strategy) == 0
    assert (await desk.orders())[1].price == Decimal(123)


async def test_size_by_equity(desk: Desk, bench: Bench) -> None:
    await desk.queue(await desk.strategy(sizing="equity_percent", sizing_value=Decimal(50)))
    await bench.work()
    # 5000, and its fee of 0.1 % on top: 5000 / 1.001 / 50000.
    assert (await desk.order()).quantity == Decimal("0.099900099900099900")


async def test_all_of_the_equity_of_a_spot_account_is_what_its_money_buys(
    desk: Desk, settings: Settings
) -> None:
    """Not what its owner's other coins are worth: the exchange takes only the money."""
    async with StubExchange() as stub:
        settings = settings.model_copy(update={"exchange_base_url": stub.url, "exchange_timeout": 20})
        stub.account.balances = {"USDT": Decimal(1000), "BTC": Decimal("3.5"), "ETH": Decimal(2)}
        account = await desk.account()
        strategy = await desk.strategy(account, sizing="equity_percent", sizing_value=Decimal(100))
        # What another strategy has bought is the account's: 0.4 at 2500 are 1000 more.
        other = await desk.strategy(account)
        columns = {"user_id": desk.user_id, "strategy_id": other, "symbol": "ETHUSDT"}
        async with working_here(settings):
            await desk.queue(strategy, None, market_position="long", quantity=None)
            await desk.until_idle()
            async with desk.database.transaction() as session:
                session.add(Position(quantity=Decimal("0.4"), **columns))
            await desk.queue(strategy, None, symbol="BNBUSDT", market_position="long", quantity=None)
            await desk.until_idle()
    bought, refused = await desk.orders()
    # 1000 / 1.001 / 1.002 / 50000, down to the step.
    assert (bought.state, bought.filled_quantity) == (OrderState.FILLED, Decimal("0.01994"))
    # 0.01994 BTC and 0.4 ETH are 1997, and of 1000 there are 2.003 left: 1999.003 / 1.001 / 1.002 / 600.
    assert refused.quantity == Decimal("3.321699923496330681")
    assert refused.state == OrderState.REJECTED


async def test_what_fees_leave_of_a_target_is_left(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    bench.exchange.least = Decimal("0.001")

    async def told(action: str | None, **columns: Any) -> tuple[str, str | None]:
        signal_id = await desk.queue(strategy, action, **columns)
        await bench.work()
        signal = await desk.signal(signal_id)
        return signal.status, signal.status_reason

    def left(quantity: str) -> tuple[str, str]:
        missing = f"{quantity} BTCUSDT is missing to what the signal asks for"
        return SignalStatus.NOTHING_TO_DO, f"{missing}, and 0.001 is the least order"

    ordered = (SignalStatus.ORDERED, None)
    long = {"market_position": "long", "position_size": Decimal("0.02")}
    # Who asks for an amount gets an order, or hears from the exchange why not; and so does who enters.
    assert await told("buy", quantity=Decimal("0.0004")) == ordered
    dust = "what is held, 0.0004 BTCUSDT, is dust: 0.001 is the least order"
    assert await told("close") == (SignalStatus.NOTHING_TO_DO, dust)
    assert await told("buy", quantity=Decimal("0.0195")) == ordered
    assert await told(None, **long) == left("0.0001")
    assert await told("close") == ordered
    assert await told(None, **long | {"position_size": Decimal("0.0001")}) == ordered


async def wait_in_queue(desk: Desk, seconds: float) -> None:
    """Makes PostgreSQL believe that what is queued was queued so long ago."""
    await change(desk, OutboxRow, created_at=OutboxRow.created_at - timedelta(seconds=seconds))


async def test_too_long_in_the_queue(desk: Desk, bench: Bench) -> None:
    signal_id = await desk.queue(await desk.strategy(max_alert_age=60))
    await wait_in_queue(desk, 61)
    await bench.work()
    assert (await desk.refusal(signal_id)).rule == Rule.STALE
    assert bench.exchange.sent == []


@pytest.mark.parametrize(("skew", "rule"), [(-61, Rule.STALE), (-50, None), (50, None), (3600, None)])
async def test_age_is_by_the_clock_of_postgresql(
    desk: Desk, bench: Bench, skew: float, rule: Rule | None
) -> None:
    """The web process's clock (`received_at`) may be anywhere; the sender's counts only into the past."""
    now = await desk.now()
    signal_id = await desk.queue(
        await desk.strategy(max_alert_age=60),
        sent_at=now + timedelta(seconds=skew),
        received_at=now - timedelta(days=3),
    )
    await bench.work()
    assert len(bench.exchange.sent) == (0 if rule else 1)
    if rule:
        assert (await desk.refusal(signal_id)).rule == rule


@pytest.mark.parametrize(
    "columns", [{"action": "close"}, {"action": None, "market_position": "flat"}], ids=["close", "flat"]
)
async def test_exits_are_late_rather_than_never(desk: Desk, bench: Bench, columns: dict[str, Any]) -> None:
    strategy = await desk.strategy(max_alert_age=60)
    await desk.queue(strategy)
    await bench.work()
    await desk.queue(strategy, **columns)
    await wait_in_queue(desk, 9999)
    await bench.work()
    assert await desk.held(strategy) == 0
    assert (await desk.orders())[1].reduce_only


@pytest.mark.parametrize(
    "columns", [{"action": "close"}, {"action": None, "market_position": "flat"}], ids=["close", "flat"]
)
async def test_an_exit_where_nothing_is_held_asks_no_exchange(
    desk: Desk, bench: Bench, columns: dict[str, Any]
) -> None:
    bench.exchange.prices.append("nonsense")
    signal_id = await desk.queue(await desk.strategy(), price=None, **columns)
    await bench.work()
    signal = await desk.signal(signal_id)
    assert signal.status == SignalStatus.NOTHING_TO_DO
    assert signal.status_reason == "0 BTCUSDT is what the signal asks for"
    assert list(bench.exchange.prices) == ["nonsense"]


async def test_an_exit_waits_for_an_open_entry_that_has_bought_nothing_yet(desk: Desk, bench: Bench) -> None:
    bench.exchange.script.append("open")
    strategy = await desk.strategy()
    await desk.queue(strategy)
    await bench.turn()
    close = await desk.queue(strategy, "close")
    await bench.turn()
    assert (await desk.signal(close)).status == SignalStatus.QUEUED
    order = await desk.order()
    bench.exchange.fill(order.client_order_id, order.quantity)
    await bench.work()
    assert (await desk.signal(close)).status == SignalStatus.ORDERED
    assert await desk.held(strategy) == 0


async def test_a_newer_target_supersedes_older_ones_but_no_plain_order_and_no_exit(
    desk: Desk, bench: Bench
) -> None:
    strategy = await desk.strategy()
    size = Decimal("0.02")
    long = await desk.queue(strategy, None, market_position="long", position_size=size)
    buy = await desk.queue(strategy, "buy")
    close = await desk.queue(strategy, "close")
    elsewhere = await desk.queue(strategy, "buy", symbol="ETHUSDT")
    short = await desk.queue(strategy, None, market_position="short", position_size=size)
    again = await desk.queue(strategy, None, market_position="short", position_size=size)
    await bench.work()
    statuses = [(await desk.signal(id_)).status for id_ in (long, buy, close, elsewhere, short, again)]
    nothing, ordered = SignalStatus.NOTHING_TO_DO, SignalStatus.ORDERED
    assert statuses == [nothing, ordered, ordered, ordered, nothing, ordered]
    assert await desk.held(strategy) == -size


async def test_an_exit_is_not_lost_to_a_newer_entry_that_is_refused(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy(max_alert_age=60)
    await desk.queue(strategy)
    await bench.work()
    exits = [await desk.queue(strategy, None, market_position="flat") for _ in range(2)]
    entry = await desk.queue(strategy, None, market_position="long", position_size=Decimal(1))
    await wait_in_queue(desk, 9999)
    await bench.work()
    assert (await desk.refusal(entry)).rule == Rule.STALE
    statuses = [(await desk.signal(id_)).status for id_ in exits]
    assert statuses == [SignalStatus.NOTHING_TO_DO, SignalStatus.ORDERED]
    assert await desk.held(strategy) == 0


@pytest.mark.parametrize("late", ["flat", "short", "long"])
async def test_a_target_that_was_sent_earlier_overrides_no_later_one(
    desk: Desk, bench: Bench, late: str
) -> None:
    strategy, now = await desk.strategy(), await desk.now()
    sized: dict[str, Any] = {"quantity": None, "position_size": Decimal("0.01")}

    async def target(word: str, ago: float, **columns: Any) -> SignalStatus:
        sent_at = now - timedelta(seconds=ago)
        signal_id = await desk.queue(
            strategy, None, market_position=word, sent_at=sent_at, **sized, **columns
        )
        await bench.work()
        return SignalStatus((await desk.signal(signal_id)).status)

    assert await target("long", 10) == SignalStatus.ORDERED
    assert await target(late, 20) == SignalStatus.NOTHING_TO_DO
    assert await desk.held(strategy) == Decimal("0.01")
    # In another market, or sent at the same second or later, it counts.
    assert await target("long", 20, symbol="ETHUSDT") == SignalStatus.ORDERED
    assert await target("flat", 10) == SignalStatus.ORDERED
    assert await desk.held(strategy) == 0


async def test_an_exit_is_not_too_late_for_a_later_entry_that_was_refused(desk: Desk, bench: Bench) -> None:
    strategy, now = await desk.strategy(max_position=Decimal("0.01")), await desk.now()
    sized: dict[str, Any] = {"quantity": None}
    await desk.queue(strategy, "buy", quantity=Decimal("0.01"))
    await bench.work()
    later = await desk.queue(
        strategy,
        None,
        market_position="long",
        position_size=Decimal(9),
        sent_at=now - timedelta(seconds=5),
        **sized,
    )
    await bench.work()
    assert (await desk.signal(later)).status == SignalStatus.REFUSED
    earlier = now - timedelta(seconds=10)
    exit_id = await desk.queue(strategy, None, market_position="flat", sent_at=earlier, **sized)
    await bench.work()
    assert (await desk.signal(exit_id)).status == SignalStatus.ORDERED


async def test_a_target_that_is_reached_asks_for_nothing(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    for _ in range(2):
        signal_id = await desk.queue(strategy, None, market_position="long", position_size=Decimal(1))
        await bench.work()
    signal = await desk.signal(signal_id)
    assert signal.status == SignalStatus.NOTHING_TO_DO
    assert signal.status_reason == "1 BTCUSDT is what the signal asks for"
    assert len(bench.exchange.sent) == 1


@pytest.mark.parametrize("word", ["rejected", "credentials"])
async def test_refused_by_the_exchange(desk: Desk, bench: Bench, word: str) -> None:
    bench.exchange.script.append(word)
    signal_id = await desk.queue(await desk.strategy())
    await bench.work()
    assert (await desk.order()).state == OrderState.REJECTED
    signal = await desk.signal(signal_id)
    assert signal.status == SignalStatus.FAILED
    assert "the exchange refused the order" in (signal.status_reason or "")
    assert bench.told.kinds() == ["failure"]


async def test_not_sent_is_sent_later(desk: Desk, bench: Bench) -> None:
    bench.exchange.script.extend(["not_sent", "not_sent"])
    await desk.queue(await desk.strategy())
    await bench.work()
    order = await desk.order()
    assert (order.state, order.attempts) == (OrderState.FILLED, 3)
    assert bench.exchange.taken == [order.client_order_id]


@pytest.mark.parametrize("word", ["lost", "hang"])
async def test_the_answer_is_lost(desk: Desk, bench: Bench, word: str) -> None:
    bench.exchange.script.append(word)
    await desk.queue(await desk.strategy())
    await bench.work()
    order = await desk.order()
    assert (order.state, order.attempts) == (OrderState.FILLED, 1)
    assert len(bench.exchange.sent) == 1
    states = [event["state"] for event in await desk.events("order")]
    assert states == ["new", "submitted", "unknown", "filled"]


@pytest.mark.parametrize("word", ["dropped", "nonsense"])
async def test_it_never_arrived(desk: Desk, bench: Bench, word: str) -> None:
    bench.exchange.script.append(word)
    bench.exchange.questions.extend(["not_sent", "nonsense"])
    await desk.queue(await desk.strategy())
    await bench.turn()
    assert (await desk.order()).state == OrderState.UNKNOWN
    await bench.work()
    order = await desk.order()
    assert (order.state, order.attempts) == (OrderState.FILLED, 2)
    first, second = bench.exchange.sent
    assert first.client_order_id == second.client_order_id
    assert first.issued_at is not None
    assert second.issued_at is not None
    assert (second.issued_at - first.issued_at).total_seconds() > bench.exchange.settle_time


async def test_not_sent_again_when_it_is_too_old(desk: Desk, bench: Bench) -> None:
    bench.exchange.script.append("dropped")
    signal_id = await desk.queue(await desk.strategy(max_alert_age=60))
    await bench.turn()
    await wait_in_queue(desk, 61)
    await bench.work()
    assert (await desk.order()).state == OrderState.REJECTED
    assert (await desk.refusal(signal_id)).rule == Rule.STALE
    assert len(bench.exchange.sent) == 1


async def test_not_sent_again_when_halted_meanwhile(desk: Desk, bench: Bench) -> None:
    bench.exchange.script.append("not_sent")
    signal_id = await desk.queue(await desk.strategy())
    await bench.turn()
    async with desk.database.transaction() as session:
        await halts.switch_on(session, Target(desk.user_id), None)
    await bench.work()
    assert (await desk.order()).state == OrderState.REJECTED
    assert (await desk.refusal(signal_id)).rule == Rule.HALTED
    assert len(bench.exchange.sent) == 1


async def test_duplicate_is_no_refusal(desk: Desk, bench: Bench) -> None:
    """Taken for lost, sent again, and refused because the first one has arrived after all."""
    bench.exchange.settle_time = 0.0
    bench.exchange.script.extend(["dropped", "rejected"])
    await desk.queue(await desk.strategy())
    await bench.turn()
    original = bench.exchange.place

    async def arrives_late(order: Any) -> Any:
        bench.exchange.script.appendleft("lost")
        with pytest.raises(Exception, match="time-out"):
            await original(order)
        return await original(order)

    bench.exchange.place = arrives_late  # type: ignore[method-assign]  # this exchange is ours
    await bench.work()
    order = await desk.order()
    assert (order.state, order.attempts) == (OrderState.FILLED, 2)
    assert bench.exchange.taken == [order.client_order_id]


async def test_what_always_fails_is_given_up_where_nothing_was_sent(
    desk: Desk, bench: Bench, settings: Settings
) -> None:
    strategy = await desk.strategy()
    first = await desk.queue(strategy, price=Decimal("1e-18"), quantity=Decimal("1e19"))
    second = await desk.queue(strategy)
    await change(desk, Strategy, sizing="equity_percent", sizing_value=Decimal(1))
    bench.exchange.worth = "a lot"  # type: ignore[assignment]  # an exchange that answers nonsense
    await bench.work()
    for signal_id in (first, second):
        signal = await desk.signal(signal_id)
        assert signal.status == SignalStatus.FAILED
        assert "internal error" in (signal.status_reason or "")
    assert bench.told.kinds() == ["failure", "failure"]
    assert await desk.orders() == []


async def test_account_that_cannot_be_opened(desk: Desk, bench: Bench) -> None:
    account = await desk.account()
    signal_id = await desk.queue(await desk.strategy(account))

    def broken(_account: ExchangeAccount) -> FakeExchange:
        from tradingbot.exchanges.base import CredentialsError

        raise CredentialsError("no such exchange")

    bench.exchanges._opener = broken
    await bench.work()
    signal = await desk.signal(signal_id)
    assert signal.status == SignalStatus.FAILED
    assert signal.status_reason == "the exchange account cannot be used: no such exchange"


async def test_waits_for_an_order_that_is_not_over(desk: Desk, bench: Bench) -> None:
    bench.exchange.script.append("partial")
    strategy = await desk.strategy()
    await desk.queue(strategy)
    await bench.work()
    first = await desk.order()
    assert first.state == OrderState.PARTIALLY_FILLED
    await desk.queue(strategy, "close")
    elsewhere = await desk.queue(await desk.strategy())
    await bench.turn()
    await bench.turn()
    assert len(bench.exchange.sent) == 2
    assert (await desk.signal(elsewhere)).status == SignalStatus.ORDERED
    bench.exchange.fill(first.client_order_id, first.quantity / 2)
    await bench.work()
    assert await desk.held(strategy) == 0
    assert bench.exchange.sent[-1].quantity == Decimal("0.01")


async def test_orders_of_a_strategy_are_in_the_order_of_its_signals(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy()
    bench.exchange.script.extend(["not_sent", "lost"])
    signals = [await desk.queue(strategy, quantity=Decimal(n)) for n in range(1, 5)]
    await bench.work()
    assert [order.signal_id for order in await desk.orders()] == signals
    assert [order.quantity for order in bench.exchange.sent] == [1, 1, 2, 3, 4]


async def move_to(session: AsyncSession, desk: Desk, strategy_id: UUID, account: UUID) -> None:
    strategy = await strategies.get(session, desk.user_id, strategy_id, change=True)
    await strategies.change(session, strategy, StrategyChanges(exchange_account_id=account))


async def test_an_account_that_changes_while_the_exchange_is_asked_is_not_traded_on(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = await desk.account(), await desk.account()
    strategy = await desk.strategy(before)
    original = bench.exchange.price

    async def price(symbol: str) -> Decimal | None:
        async with desk.database.transaction() as session:
            await move_to(session, desk, strategy, after)
        return await original(symbol)

    monkeypatch.setattr(bench.exchange, "price", price)
    signal_id = await desk.queue(strategy)
    await bench.work()
    order = await desk.order()
    assert (order.exchange_account_id, order.signal_id) == (after, signal_id)
    assert len(bench.exchange.sent) == 1


async def test_an_account_that_is_being_changed_is_waited_for(desk: Desk, bench: Bench) -> None:
    strategy, account = await desk.strategy(await desk.account()), await desk.account()
    await desk.queue(strategy)
    async with desk.database.transaction() as session:
        await move_to(session, desk, strategy, account)
        deciding = asyncio.create_task(bench.turn())
        done, _ = await asyncio.wait([deciding], timeout=0.5)
        assert not done
    await deciding
    await bench.work()
    assert (await desk.order()).exchange_account_id == account


async def an_order(desk: Desk, account: UUID) -> UUID:
    strategy = await desk.strategy(account)
    async with desk.database.transaction() as session:
        order = Order(
            user_id=desk.user_id,
            strategy_id=strategy,
            exchange_account_id=account,
            client_order_id="tbone",
            symbol=SYMBOL,
            side=Side.BUY,
            quantity=Decimal(1),
            price=Decimal(50000),
        )
        session.add(order)
        await session.flush()
        return order.id


async def test_of_many_who_place_an_order_at_once_one_sends_it(desk: Desk, bench: Bench) -> None:
    """As if the claims of the outbox did not hold: this is the fence behind them."""
    order_id = await an_order(desk, await desk.account())
    await asyncio.gather(*(bench.executor.placer.place(order_id) for _ in range(5)))
    await bench.executor.placer.place(order_id)
    assert [order.client_order_id for order in bench.exchange.sent] == ["tbone"]
    assert (await desk.order()).state == OrderState.FILLED
    assert len(await desk.fills()) == 1


async def test_a_paper_order_is_filled_once_whoever_fills_it(
    desk: Desk, bench: Bench, settings: Settings
) -> None:
    """Paper has no memory but the tables: who finds the order unfilled fills it, under the account's lock."""
    columns = {"exchange": "paper", "mode": Mode.PAPER, "starting_equity": Decimal(50050)}
    order_id = await an_order(desk, await desk.account(**columns))
    bench.exchanges._opener = opener(settings, desk.database)
    await asyncio.gather(*(bench.executor.placer.place(order_id) for _ in range(5)))
    await bench.executor.placer.place(order_id)
    order = await desk.order()
    assert (order.state, order.filled_quantity) == (OrderState.FILLED, Decimal(1))
    assert len(await desk.fills()) == 1
    assert await desk.held(order.strategy_id) == 1


async def test_an_exchange_is_opened_again_when_its_account_changes(desk: Desk, bench: Bench) -> None:
    strategy = await desk.strategy(await desk.account(mode=Mode.PAPER, exchange="paper"))
    for fee in ("0.001", "0.001", "0.002"):
        await change(desk, ExchangeAccount, fee_rate=Decimal(fee))
        await desk.queue(strategy)
        await bench.work()
    assert bench.exchange.closed == 1
    assert await desk.all(Order, Order.symbol == SYMBOL, Order.state != OrderState.FILLED) == []


TARGETS = {
    "long 1, and then less": (
        "0",
        [("long", "1", False), ("long", "0.5", True)],
        [("buy", "1"), ("sell", "0.5")],
    ),
    "less, and then more": (
        "1",
        [("long", "0.5", True), ("long", "2", False)],
        [("sell", "0.5"), ("buy", "1.5")],
    ),
    "less, and then nothing": ("1", [("long", "0.5", True), ("flat", None, True)], [("sell", "1")]),
    "more, and then nothing": ("1", [("long", "2", False), ("flat", None, True)], [("sell", "1")]),
}


@pytest.mark.parametrize(("held", "targets", "trades"), TARGETS.values(), ids=TARGETS.keys())
async def test_a_target_that_only_closes_takes_the_place_of_none_that_opens(
    desk: Desk,
    bench: Bench,
    held: str,
    targets: list[tuple[str, str | None, bool]],
    trades: list[tuple[str, str]],
) -> None:
    strategy = await desk.strategy(await desk.account())
    if held != "0":
        await desk.queue(strategy, "buy", quantity=Decimal(held))
        await bench.work()
    before = len(await desk.orders())
    for position, size, reduce_only in targets:
        await desk.queue(
            strategy,
            None,
            market_position=position,
            position_size=None if size is None else Decimal(size),
            quantity=None,
            reduce_only=reduce_only,
        )
    await bench.work()
    assert [(order.side, order.quantity) for order in (await desk.orders())[before:]] == [
        (side, Decimal(quantity)) for side, quantity in trades
    ]


@pytest.mark.parametrize(
    ("held", "alert", "trades", "note"),
    [
        ("1", {"action": "sell", "quantity": Decimal("0.4")}, [("sell", "0.4")], None),
        ("1", {"action": "sell", "quantity": Decimal(3)}, [("sell", "1")], "opens nothing"),
        ("1", {"action": "buy", "quantity": Decimal(1)}, [], "opens nothing"),
        ("-1", {"action": "buy", "quantity": Decimal(3)}, [("buy", "1")], "opens nothing"),
        ("1", {"market_position": "short", "position_size": Decimal(2)}, [("sell", "1")], "opens nothing"),
        ("1", {"market_position": "long", "position_size": Decimal("0.25")}, [("sell", "0.75")], None),
        ("1", {"market_position": "long", "position_size": Decimal(2)}, [], "opens nothing"),
        ("0", {"action": "buy", "quantity": Decimal(1)}, [], "opens nothing"),
    ],
)
@pytest.mark.parametrize("halted", [False, True])
async def test_reduce_only_opens_nothing_and_no_halt_stops_it(
    desk: Desk,
    bench: Bench,
    held: str,
    alert: dict[str, Any],
    trades: list[tuple[str, str]],
    note: str | None,
    halted: bool,
) -> None:
    strategy = await desk.strategy(await desk.account())
    if held != "0":
        side = "buy" if Decimal(held) > 0 else "sell"
        await desk.queue(strategy, side, quantity=abs(Decimal(held)))
        await bench.work()
    before = len(await desk.orders())
    if halted:
        async with desk.database.transaction() as session:
            await halts.switch_on(session, EVERYBODY, "fire")
    columns = {"quantity": None} | alert
    signal_id = await desk.queue(strategy, columns.pop("action", None), reduce_only=True, **columns)
    await bench.work()
    made: list[Order] = (await desk.orders())[before:]
    assert [(order.side, order.quantity, order.reduce_only) for order in made] == [
        (side, Decimal(quantity), True) for side, quantity in trades
    ]
    signal = await desk.signal(signal_id)
    if trades:
        assert signal.status == SignalStatus.ORDERED
        assert await desk.all(Refusal) == []
    elif not halted:
        assert signal.status == SignalStatus.NOTHING_TO_DO
    if note is not None and not (halted and not trades):
        assert note in (signal.status_reason or "")
