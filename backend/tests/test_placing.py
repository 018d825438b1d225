"""One order between us and an exchange: what comes of it in the rarer turns that things may take."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from tests.desk import SYMBOL, Desk, open_desk
from tests.fake_exchange import Bench, FakeExchange, open_bench
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import CredentialsError, Exchange, NotSentError, OrderReport, Trade
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.orders import placing
from tradingbot.orders.exchange_pool import ExchangePool, ask
from tradingbot.orders.models import Order, OrderState, Side
from tradingbot.orders.outcome import DONE
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions import closing
from tradingbot.positions.models import Position
from tradingbot.signals.models import SignalStatus

D = Decimal
LOT = D("0.01")


# Connecting may take its time on a busy machine: nothing here is about that.
pytestmark = pytest.mark.usefixtures("unhurried")


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    quick = {"WORKER_RETRY_DELAY": "0.02", "WORKER_RETRY_LONGEST": "0.1", "EXCHANGE_TIMEOUT": "30"}
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


async def stored(desk: Desk, **columns: Any) -> Order:
    """Stores an order that nobody has queued."""
    account = await desk.account()
    values = {"client_order_id": f"tb{uuid4().hex[:20]}", "symbol": SYMBOL, "side": Side.BUY, "quantity": LOT}
    order = Order(
        user_id=desk.user_id,
        strategy_id=columns.pop("strategy_id", None) or await desk.strategy(account),
        exchange_account_id=account,
        **(values | columns),
    )
    async with desk.database.transaction() as session:
        session.add(order)
        await session.flush()
        await session.refresh(order)
    return order


async def account_of(desk: Desk, order: Order) -> ExchangeAccount:
    (account,) = await desk.all(ExchangeAccount, ExchangeAccount.id == order.exchange_account_id)
    return account  # type: ignore[no-any-return]  # `all` is of any model


async def close_by_hand(desk: Desk, bench: Bench) -> UUID:
    """Buys, and queues an order that sells it all again."""
    await desk.queue(await desk.strategy(await desk.account()))
    await bench.work()
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        return (await closing.close(session, desk.user_id, position.id, "key")).id


def open_by(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, opener: Callable[[ExchangeAccount], Exchange]
) -> None:
    monkeypatch.setattr(bench.exchanges, "_opener", opener)
    bench.exchanges._open.clear()


def cannot(error: Exception) -> Callable[[ExchangeAccount], Exchange]:
    def opener(_account: ExchangeAccount) -> Exchange:
        raise error

    return opener


async def test_a_process_that_was_held_up_does_not_send(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the fence and the request: by now others may take the order for lost."""
    times: Iterator[float] = iter([0.0, 1.1])
    monkeypatch.setattr(placing, "monotonic", lambda: next(times, 0.0))
    await desk.queue(await desk.strategy())
    await bench.turn()
    assert (await desk.order()).state == OrderState.SUBMITTED
    assert bench.exchange.sent == []
    await bench.work()
    order = await desk.order()
    assert (order.state, order.attempts) == (OrderState.FILLED, 2)
    assert len(bench.exchange.sent) == 1


async def test_an_earlier_order_whose_fate_is_unknown_is_cleared_up_first(desk: Desk, bench: Bench) -> None:
    earlier = await stored(desk, state="unknown", attempts=1, submitted_at=utc_now() - timedelta(seconds=60))
    await desk.queue(earlier.strategy_id)
    await bench.work()
    first, second = await desk.orders()
    assert (first.id, first.state, second.state) == (earlier.id, OrderState.FILLED, OrderState.FILLED)
    assert bench.exchange.taken == [first.client_order_id, second.client_order_id]


@pytest.mark.parametrize(("answers", "state"), [([], "rejected"), (["not_sent"], "filled")])
async def test_a_refusal_of_the_second_attempt_counts_when_the_first_did_not_arrive(
    desk: Desk, bench: Bench, answers: list[str], state: str
) -> None:
    bench.exchange.settle_time = 0.0
    bench.exchange.script.extend(["dropped", "rejected"])
    await desk.queue(await desk.strategy())
    await bench.turn()
    bench.exchange.questions.extend(["", *answers])
    await bench.work()
    order = await desk.order()
    assert order.state == state
    assert bench.exchange.taken == ([order.client_order_id] if state == "filled" else [])


@pytest.mark.parametrize("error", [CredentialsError("no such exchange"), RuntimeError("out of order")])
async def test_an_order_that_may_be_at_the_exchange_is_never_given_up(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench.exchange.script.append("lost")
    await desk.queue(await desk.strategy())
    await bench.turn()
    open_by(bench, monkeypatch, cannot(error))
    for _ in range(9):
        async with desk.database.transaction() as session:
            await session.execute(update(OutboxRow).values(available_at=utc_now() - timedelta(seconds=1)))
        await bench.turn()
    assert (await desk.order()).state == OrderState.UNKNOWN
    open_by(bench, monkeypatch, lambda _account: bench.exchange)
    await bench.work()
    order = await desk.order()
    assert order.state == OrderState.FILLED
    assert bench.exchange.taken == [order.client_order_id]


@pytest.mark.parametrize("error", [CredentialsError("no such exchange"), RuntimeError("out of order")])
async def test_an_order_that_was_not_sent_is_given_up(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench.exchange.script.append("not_sent")
    signal_id = await desk.queue(await desk.strategy())
    await bench.turn()
    open_by(bench, monkeypatch, cannot(error))
    await bench.work()
    assert (await desk.order()).state == OrderState.REJECTED
    signal = await desk.signal(signal_id)
    assert signal.status == SignalStatus.FAILED
    assert (signal.status_reason or "").split(": ")[0] in (
        "the exchange account cannot be used",
        "internal error",
    )
    assert "failure" in bench.told.kinds()


async def test_a_close_by_hand_that_the_exchange_refuses_is_told_and_sent_again(
    desk: Desk, bench: Bench
) -> None:
    order_id = await close_by_hand(desk, bench)
    bench.exchange.script.append("rejected")
    await bench.turn()
    (order,) = await desk.all(Order, Order.id == order_id)
    assert (order.state, order.reason) == (OrderState.NEW, "Account has insufficient balance.")
    assert bench.told.messages[-1][:2] == ("failure", f"{SYMBOL}: an exit does not get out")
    await bench.work()
    (order,) = await desk.all(Order, Order.id == order_id)
    assert (order.state, order.attempts) == (OrderState.FILLED, 2)


@pytest.mark.parametrize("word", ["reported", "reported_lost"])
async def test_an_exit_that_is_reported_as_rejected_goes_on_under_another_name(
    desk: Desk, bench: Bench, word: str
) -> None:
    strategy = await desk.strategy(await desk.account())
    await desk.queue(strategy)
    await bench.work()
    bench.exchange.script.append(word)
    signal_id = await desk.queue(strategy, None, market_position="flat")
    await bench.work()
    assert (await desk.signal(signal_id)).status == SignalStatus.ORDERED
    assert [order.state for order in await desk.orders()] == ["filled", "rejected", "filled"]
    assert await desk.held(strategy) == 0
    assert (f"{SYMBOL}: an exit does not get out") in [title for _kind, title, _text in bench.told.messages]
    # An entry does not.
    bench.exchange.script.append(word)
    signal_id = await desk.queue(strategy)
    await bench.work()
    assert (await desk.signal(signal_id)).status == SignalStatus.FAILED
    assert len(await desk.orders()) == 4


async def test_only_failures_count_as_attempts(desk: Desk, bench: Bench) -> None:
    """So people are told at once, and the first pause is the shortest, however long a row has waited."""

    async def attempts() -> int:
        (row,) = await desk.all(OutboxRow)
        return int(row.attempts)

    strategy = await desk.strategy(await desk.account())
    bench.exchange.script.append("open")
    await desk.queue(strategy)
    await bench.work()
    await desk.queue(strategy, None, market_position="flat")
    await bench.turn()
    assert await attempts() == 0
    (name,) = bench.exchange.taken
    bench.exchange.fill(name, LOT)
    bench.exchange.script.extend(["not_sent", "fill"])
    await asyncio.sleep(0.5)
    await bench.turn()
    assert await attempts() == 1
    assert bench.told.messages[-1][:2] == ("failure", f"{SYMBOL}: an exit does not get out")
    await bench.work()
    assert await desk.held(strategy) == 0


async def test_an_entry_beside_an_open_one_is_no_exit(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = await desk.strategy(await desk.account())
    bench.exchange.script.append("open")
    await desk.queue(strategy)
    await bench.work()
    open_by(bench, monkeypatch, cannot(CredentialsError("no such key")))
    signal_id = await desk.queue(strategy)
    await bench.work(10)
    assert (await desk.signal(signal_id)).status == SignalStatus.FAILED


async def test_a_close_by_hand_is_never_too_late(desk: Desk, bench: Bench, settings: Settings) -> None:
    order_id = await close_by_hand(desk, bench)
    async with desk.database.transaction() as session:
        long_ago = Order.created_at - timedelta(seconds=settings.webhook_max_age + 1)
        await session.execute(update(Order).where(Order.id == order_id).values(created_at=long_ago))
    await bench.work()
    (order,) = await desk.all(Order, Order.id == order_id)
    assert order.state == OrderState.FILLED


async def test_a_close_by_hand_on_an_account_that_cannot_be_opened_is_told_and_waits(
    desk: Desk, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = await close_by_hand(desk, bench)
    open_by(bench, monkeypatch, cannot(CredentialsError("no such exchange")))
    await bench.turn()
    (order,) = await desk.all(Order, Order.id == order_id)
    assert order.state == OrderState.NEW
    assert bench.told.messages[-1][:2] == ("failure", f"{SYMBOL}: an exit does not get out")
    open_by(bench, monkeypatch, lambda _account: bench.exchange)
    await bench.work()
    (order,) = await desk.all(Order, Order.id == order_id)
    assert order.state == OrderState.FILLED


async def test_a_live_order_that_is_left_from_before_is_not_sent_under_binance_testnet(
    desk: Desk, bench: Bench
) -> None:
    order = await stored(desk)
    async with desk.database.transaction() as session:
        live = update(ExchangeAccount).where(ExchangeAccount.id == order.exchange_account_id)
        await session.execute(live.values(mode=Mode.LIVE))
    assert await bench.executor.placer.place(order.id) == DONE
    after = await desk.order()
    assert after.state == OrderState.REJECTED
    assert "BINANCE_TESTNET" in (after.reason or "")
    assert bench.exchange.sent == []
    assert bench.told.kinds() == ["failure"]


async def test_an_order_that_was_taken_for_lost_and_is_there_after_all_is_booked(
    desk: Desk, bench: Bench
) -> None:
    order = await stored(desk, state="new", attempts=1, submitted_at=utc_now())
    trade = Trade("1", LOT, D(50000), D(1), "USDT", utc_now())
    report = OrderReport(order.client_order_id, "x1", OrderState.FILLED, (trade,))
    account = await account_of(desk, order)
    for _ in range(2):
        adopted = await bench.executor.placer.adopt(order.id, report, account)
        assert adopted is not None
        assert (adopted.state, adopted.filled_quantity) == (OrderState.FILLED, LOT)
    assert await bench.executor.placer.place(order.id) == DONE
    assert bench.exchange.sent == []
    assert await desk.held(order.strategy_id) == LOT


async def test_an_old_answer_does_not_undo_a_newer_one(desk: Desk, bench: Bench) -> None:
    order = await stored(desk, state="unknown", attempts=1, submitted_at=utc_now())
    account = await account_of(desk, order)
    trade = Trade("1", LOT / 2, D(50000), D(1), "USDT", utc_now())
    partly = OrderReport(order.client_order_id, "x1", OrderState.PARTIALLY_FILLED, (trade,))
    for state in (OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED, OrderState.SUBMITTED):
        report = partly if state == OrderState.PARTIALLY_FILLED else OrderReport("x", "x1", state)
        await bench.executor.placer.adopt(order.id, report, account)
    after = await desk.order()
    assert (after.state, after.filled_quantity) == (OrderState.PARTIALLY_FILLED, LOT / 2)
    assert len(await desk.fills()) == 1


async def test_orders_that_are_gone_need_nothing(desk: Desk, bench: Bench) -> None:
    placer, gone = bench.executor.placer, uuid4()
    account = await account_of(desk, await stored(desk))
    assert await placer.place(gone) == DONE
    assert await placer.cancel(gone) == DONE
    assert await placer.refresh(gone) is True
    assert await placer.adopt(gone, OrderReport("x", "x1", OrderState.FILLED), account) is None


async def test_an_exchange_in_use_is_closed_when_the_last_one_lets_go(desk: Desk) -> None:
    made: list[FakeExchange] = []

    def opener(_account: ExchangeAccount) -> Exchange:
        made.append(FakeExchange())
        return made[-1]

    pool = ExchangePool(opener, 1)
    account = await account_of(desk, await stored(desk))
    async with pool.of(account) as first:
        async with pool.of(account) as same:
            assert same is first
        account.fee_rate = D("0.5")
        async with pool.of(account) as other:
            assert other is not first
            assert [exchange.closed for exchange in made] == [0, 0]
    assert [exchange.closed for exchange in made] == [1, 0]
    await pool.close()
    assert [exchange.closed for exchange in made] == [1, 1]


async def test_an_exchange_just_opened_is_not_closed_while_the_one_before_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[FakeExchange] = []
    closing, go_on = asyncio.Event(), asyncio.Event()

    def opener(_account: ExchangeAccount) -> Exchange:
        made.append(FakeExchange())
        return made[-1]

    async def close_slowly() -> None:
        closing.set()
        await go_on.wait()

    pool = ExchangePool(opener, 1)
    account_id = uuid4()

    async def times_closed_when_used(number: int) -> int:
        async with pool.of(ExchangeAccount(id=account_id, exchange="paper", name=f"{number}")):
            return made[number].closed

    await times_closed_when_used(0)
    monkeypatch.setattr(made[0], "close", close_slowly)
    user = asyncio.create_task(times_closed_when_used(1))
    await closing.wait()
    assert await times_closed_when_used(2) == 0
    go_on.set()
    assert await user == 0
    await pool.close()


async def test_an_exchange_that_does_not_answer_is_asked_by_one_at_a_time() -> None:
    exchange = FakeExchange()
    pool = ExchangePool(lambda _account: exchange, 1)

    def account(**columns: str) -> ExchangeAccount:
        values = {"exchange": "binance", "market": "spot", "mode": "live"} | columns
        return ExchangeAccount(id=uuid4(), **values)

    async with pool.of(account()), pool.of(account()):
        pass
    exchange.prices.append("not_sent")
    async with pool.of(account()) as first:
        with pytest.raises(NotSentError):
            await first.price("BTCUSDT")
        # Whose account it is does not matter, but where it is does.
        with pytest.raises(NotSentError, match="does not answer others either"):
            async with pool.of(account()):
                pass
        async with pool.of(account(mode="testnet")), pool.of(account(exchange="elsewhere")):
            pass
        # What it says from memory is no answer.
        await first.limits("BTCUSDT")
        with pytest.raises(NotSentError):
            async with pool.of(account()):
                pass
        await first.price("BTCUSDT")
        async with pool.of(account()):
            pass
    exchange.prices.append("not_sent")
    async with pool.of(account()) as alone:
        with pytest.raises(NotSentError):
            await alone.price("BTCUSDT")
    # One who comes when nobody asks is the one who does.
    async with pool.of(account()) as next_one:
        await next_one.price("BTCUSDT")
    await pool.close()


async def test_an_exchange_that_does_not_close_is_left(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = FakeExchange()

    async def close() -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(exchange, "close", close)
    pool = ExchangePool(lambda _account: exchange, 1)
    async with pool.of(await account_of(desk, await stored(desk))):
        pass
    await pool.close()
    assert "an exchange does not close" in capsys.readouterr().out


async def test_a_question_is_waited_for_so_long_and_no_longer() -> None:
    with pytest.raises(NotSentError, match="in time"):
        await ask(asyncio.Event().wait(), 0.01)
