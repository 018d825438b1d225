"""The worker as a whole: how it is woken, how it stops, and what it does when something in it breaks."""

import asyncio
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tests.conftest import execute
from tests.desk import Desk, open_desk, running_worker, until, working_here
from tests.network import free_port
from tests.stub_exchange import Fault, StubExchange
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.core.tasks import stop
from tradingbot.orders import repository as order_repository
from tradingbot.orders.models import OrderState
from tradingbot.orders.outcome import no_steps
from tradingbot.outbox import repository as outbox
from tradingbot.outbox.models import OutboxRow
from tradingbot.worker.heartbeat import Heartbeat
from tradingbot.worker.listener import Listener
from tradingbot.worker.main import opener, supervise, worker
from tradingbot.worker.periodic import repeat

# Nothing in these tests may have to wait for a poll.
NEVER = 600.0


@pytest.fixture
async def stub() -> AsyncIterator[StubExchange]:
    async with StubExchange() as stub:
        yield stub


@pytest.fixture
def settings(
    environment: dict[str, str], stub: StubExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    variables = {
        "EXCHANGE_BASE_URL": stub.url,
        "WORKER_HEALTH_FILE": str(tmp_path / "alive"),
        "WORKER_POLL_INTERVAL": str(NEVER),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as desk:
        yield desk


LISTENERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tradingbot worker'"
)


async def listeners(desk: Desk) -> int:
    async with desk.database.transaction() as session:
        return int((await session.execute(text(f"SELECT count(*) {LISTENERS}"))).scalar_one())


async def until_listening(desk: Desk) -> None:
    async def is_listening() -> bool:
        return await listeners(desk) > 0

    await until(is_listening)


async def test_a_notification_wakes_the_worker_and_a_lost_one_is_made_up_for(
    desk: Desk, settings: Settings
) -> None:
    strategy = await desk.strategy()
    async with working_here(settings):
        await until_listening(desk)
        await desk.queue(strategy)
        await desk.until_idle()
        async with desk.database.transaction() as session:
            await session.execute(text(f"SELECT pg_terminate_backend(pid) {LISTENERS}"))
        # Queued while nobody listens, or just then: the next one who listens looks at once.
        await desk.queue(strategy)
        await desk.until_idle()
    assert len(await desk.orders()) == 2


async def test_a_worker_that_starts_without_redis_trades_at_once(desk: Desk, tmp_path: Path) -> None:
    strategy = await desk.strategy(await desk.account())
    async with running_worker(
        tmp_path, wait=False, REDIS_URL=f"redis://:Xa8sdKq2@127.0.0.1:{free_port()}/0", STARTUP_TIMEOUT="600"
    ) as worker:
        await desk.queue(strategy)
        await desk.until_idle()
        assert "Redis" in worker.log.read_text()
    assert (await desk.order()).state == OrderState.FILLED


async def test_what_is_due_later_is_found_by_polling(desk: Desk, settings: Settings) -> None:
    await desk.queue(await desk.strategy())
    async with desk.database.transaction() as session:
        later = text("now() + interval '0.5 seconds'")
        await session.execute(update(OutboxRow).values(available_at=later))
    async with working_here(settings.model_copy(update={"worker_poll_interval": 0.05})):
        await desk.until_idle()
    assert (await desk.order()).state == OrderState.FILLED


async def test_a_stopped_worker_finishes_what_it_has_in_hand_and_begins_nothing_new(
    desk: Desk, stub: StubExchange, tmp_path: Path
) -> None:
    strategy = await desk.strategy(await desk.account())
    for _ in range(2):
        await desk.queue(strategy)
    stub.faults.add(Fault("delay", "after", seconds=1.5))
    async with running_worker(tmp_path, RECONCILE_INTERVAL=str(NEVER)) as process:
        await stub.came("/order")
        assert await process.stop() == 0
        assert "the worker has stopped" in process.log.read_text()
    assert (await desk.order()).state == OrderState.FILLED
    assert len(await desk.all(OutboxRow)) == 1
    assert len(stub.posts()) == 1


async def test_a_stopped_worker_does_not_wait_for_ever_and_releases_the_rest(
    desk: Desk, stub: StubExchange, settings: Settings, tmp_path: Path
) -> None:
    await desk.queue(await desk.strategy(await desk.account()))
    stub.faults.add(Fault("delay", "after", seconds=4))
    hasty = running_worker(tmp_path, WORKER_SHUTDOWN_TIMEOUT="0.2", RECONCILE_INTERVAL=str(NEVER))
    async with hasty as process:
        await stub.came("/order")
        assert await process.stop() == 0
        assert "released before its work is done" in process.log.read_text()
    assert (await desk.order()).state == OrderState.SUBMITTED
    async with working_here(settings.model_copy(update={"worker_poll_interval": 0.05})):
        await desk.until_idle()
    order = await desk.order()
    assert order.state == OrderState.FILLED
    assert stub.account.counts() == {order.client_order_id: 1}
    assert len(stub.posts()) == 1


async def test_two_workers_share_the_strategies_and_keep_the_order_of_each(
    desk: Desk, settings: Settings
) -> None:
    strategies = [await desk.strategy() for _ in range(5)]
    signals = {
        strategy: [await desk.queue(strategy, quantity=Decimal(n), price=Decimal(1)) for n in range(1, 9)]
        for strategy in strategies
    }
    at_once: set[Any] = set()
    most = 0

    async def steps(name: str) -> None:
        nonlocal most
        task = asyncio.current_task()
        if name == "claimed":
            at_once.add(task)
            most = max(most, len(at_once))
            # So that every loop gets its turn.
            await asyncio.sleep(0)
        elif name == "finishing":
            at_once.discard(task)

    async with working_here(settings, steps), working_here(settings, steps):
        await desk.until_idle()
    orders = await desk.orders()
    for strategy, queued in signals.items():
        assert [order.signal_id for order in orders if order.strategy_id == strategy] == queued
        assert await desk.held(strategy) == 36
    assert 1 < most <= len(strategies)


async def test_the_heartbeat_is_there_while_the_worker_works(
    desk: Desk, settings: Settings, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    async with working_here(settings):

        async def is_alive() -> bool:
            return alive.exists()

        await until(is_alive)
        assert alive.read_text() == f"{os.getpid()}\n"
    assert not alive.exists()


def test_a_heartbeat_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradingbot.worker.heartbeat._INTERVAL", 0.0)
    heartbeat = Heartbeat(tmp_path / "none" / "alive")
    heartbeat.beat()
    heartbeat.beat()
    (tmp_path / "none").write_text("in the way")
    heartbeat.end()
    said = capsys.readouterr().out
    assert said.count("cannot be written") == 1
    assert said.count("cannot be removed") == 1


async def test_a_job_that_ends_by_itself_ends_the_worker_with_its_error(settings: Settings) -> None:
    stopping = asyncio.Event()

    async def broken() -> None:
        raise RuntimeError("out of order")

    async with worker(settings, opener, no_steps) as (loops, jobs):
        with pytest.raises(RuntimeError, match="out of order"):
            await supervise(loops, [*jobs, broken()], stopping, 10)
    assert stopping.is_set()


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("out of order"), "a job failed"), (UnavailableError("away"), "put off")],
)
async def test_a_job_that_fails_is_done_again(
    capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    done = asyncio.Event()
    rounds = 0

    async def job() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            done.set()
        raise error

    task = asyncio.create_task(repeat("job", 0.001, job))
    async with asyncio.timeout(60):
        await done.wait()
    await stop(task)
    assert capsys.readouterr().out.count(said) >= 2


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("out of order"), "a turn of the work loop failed"), (UnavailableError("away"), "")],
)
async def test_a_turn_that_breaks_does_not_end_the_loop(
    desk: Desk, settings: Settings, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    broken = True

    async def steps(name: str) -> None:
        nonlocal broken
        if broken and name == "claimed":
            broken = False
            raise error

    await desk.queue(await desk.strategy())
    async with working_here(settings, steps):
        await desk.until_idle()
    assert (await desk.order()).state == OrderState.FILLED
    assert said in capsys.readouterr().out


async def test_who_cannot_listen_says_so_once_and_tries_again(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Queue[None]()

    async def connect(*_arguments: Any, **_options: Any) -> None:
        tried.put_nowait(None)
        raise ConnectionRefusedError

    monkeypatch.setattr("tradingbot.worker.listener.asyncpg.connect", connect)
    monkeypatch.setattr("tradingbot.worker.listener.pause", lambda *_arguments: 0.0)
    task = asyncio.create_task(Listener(settings, asyncio.Event()).run())
    async with asyncio.timeout(60):
        for _ in range(3):
            await tried.get()
    await stop(task)
    assert capsys.readouterr().out.count("not listening for work") == 1


async def test_a_silent_connection_is_asked_for_a_sign_of_life(
    desk: Desk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tradingbot.worker.listener._CHECK", 0.01)
    wake = asyncio.Event()
    task = asyncio.create_task(Listener(settings, wake).run())
    await until_listening(desk)

    async def was_asked() -> bool:
        async with desk.database.transaction() as session:
            asked = text(f"SELECT count(*) {LISTENERS} AND query = 'SELECT 1'")
            return int((await session.execute(asked)).scalar_one()) > 0

    await until(was_asked)
    wake.clear()
    await desk.queue(await desk.strategy())
    async with asyncio.timeout(60):
        await wake.wait()
    await stop(task)


async def test_a_strategy_whose_work_was_done_meanwhile_is_not_kept_from_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await desk.strategy(), await desk.strategy()
    await desk.queue(first)
    await desk.queue(second)
    lock_oldest = outbox._lock_oldest

    async def after_another(session: AsyncSession, strategy_id: UUID) -> OutboxRow | None:
        if strategy_id == first:
            async with desk.database.transaction() as other:
                await other.execute(delete(OutboxRow).where(OutboxRow.strategy_id == first))
        return await lock_oldest(session, strategy_id)

    monkeypatch.setattr(outbox, "_lock_oldest", after_another)
    async with desk.database.transaction() as session:
        row = await outbox.claim(session)
        assert row is not None
        assert row.strategy_id == second
        monkeypatch.setattr(outbox, "_lock_oldest", lock_oldest)
        await desk.queue(first)
        async with desk.database.transaction() as other:
            row = await outbox.claim(other)
            assert row is not None
            assert row.strategy_id == first


# One signal, queued so many times.
_MANY_ROWS = """
INSERT INTO outbox (task, strategy_id, symbol, signal_id, available_at)
SELECT 'signal', strategy_id, symbol, id, CASE number WHEN 1 THEN now() + interval '1 hour' ELSE now() END
FROM signals, generate_series(1, 20000) AS number
"""


async def test_a_claim_costs_no_more_behind_many_rows(desk: Desk, owner_url: str) -> None:
    """Twenty thousand rows behind one that waits: neither is any of them taken, nor are they read."""
    first, second = sorted([await desk.strategy(), await desk.strategy()])
    await desk.queue(first)
    # In the index, rows that other tests have deleted are still read over.
    await asyncio.to_thread(execute, owner_url, "TRUNCATE outbox")
    async with desk.database.transaction() as session:
        await session.execute(text(_MANY_ROWS))
    await desk.queue(first, symbol="ETHUSDT")
    await desk.queue(second)
    await asyncio.to_thread(execute, owner_url, "ANALYZE outbox")
    async with desk.database.transaction() as session:
        for name in ("_LOCK_A_STRATEGY", "_OLDEST"):
            statement = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {getattr(outbox, name)}")
            values = {} if name == "_LOCK_A_STRATEGY" else {"strategy_id": first}
            plan = (await session.execute(statement, values)).scalar_one()[0]["Plan"]
            assert plan["Actual Rows"] == 1
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50
    claimed = []
    async with desk.database.transaction() as session:
        for _ in range(2):
            row = await outbox.claim(session)
            assert row is not None
            claimed.append((row.strategy_id, row.symbol))
            await outbox.finish(session, row.id)
        assert await outbox.claim(session) is None
    assert claimed == [(first, "ETHUSDT"), (second, "BTCUSDT")]


# One signal, sent again and again.
_MANY_SIGNALS = """
WITH more AS (
    INSERT INTO signals (user_id, strategy_id, dedup_key, symbol, action, received_at, payload)
    SELECT user_id, strategy_id, number::text, symbol, action, received_at, payload
    FROM signals, generate_series(1, 10000) AS number
    RETURNING id, strategy_id, symbol
)
INSERT INTO outbox (task, strategy_id, symbol, signal_id) SELECT 'signal', strategy_id, symbol, id FROM more
"""


def rows_read(plan: dict[str, Any]) -> int:
    """Return how many rows of tables a plan has read."""
    rows = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return (int(rows) if "Relation Name" in plan else 0) + sum(map(rows_read, plan.get("Plans", [])))


async def test_what_supersedes_a_signal_is_not_looked_for_in_the_whole_queue(
    desk: Desk, owner_url: str
) -> None:
    strategy = await desk.strategy()
    signal = await desk.signal(await desk.queue(strategy, "close"))
    async with desk.database.transaction() as session:
        await session.execute(text(_MANY_SIGNALS))
    await asyncio.to_thread(execute, owner_url, "ANALYZE outbox, signals")
    newer = order_repository._newer_targets(signal, 0)
    sql = newer.compile(dialect=desk.database.engine.dialect, compile_kwargs={"literal_binds": True})
    async with desk.database.transaction() as session:
        statement = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        plan = (await session.execute(statement)).scalar_one()[0]["Plan"]
        assert 0 < rows_read(plan) < 500, plan
        assert not await order_repository.has_newer_target(session, signal, 0)
    await desk.queue(strategy, None, market_position="flat")
    elsewhere = await desk.signal(await desk.queue(strategy, "close", symbol="ETHUSDT"))
    last = max(row.id for row in await desk.all(OutboxRow, OutboxRow.symbol == signal.symbol))
    async with desk.database.transaction() as session:
        assert await order_repository.has_newer_target(session, signal, last - 50)
        # So it is with a row of a version that knows no symbol.
        await session.execute(update(OutboxRow).where(OutboxRow.id == last).values(symbol=""))
        assert await order_repository.has_newer_target(session, signal, last - 50)
        assert not await order_repository.has_newer_target(session, elsewhere, last - 50)


async def test_a_row_that_comes_back_at_once_lets_others_go_first(desk: Desk) -> None:
    """Or an entry that an exchange asks to repeat at once would keep the exits of other markets back."""
    first, second = await desk.strategy(), await desk.strategy()
    await desk.queue(first, symbol="ETHUSDT")
    await desk.queue(first)
    await desk.queue(second)
    turns = []
    for _ in range(6):
        async with desk.database.transaction() as session:
            row = await outbox.claim(session)
            assert row is not None
            turns.append((row.strategy_id, row.symbol))
            await outbox.postpone(session, row.id, 0, 1, "not now")
    assert turns == [(first, "ETHUSDT"), (first, "BTCUSDT"), (second, "BTCUSDT")] * 2


async def test_rows_of_a_version_that_knows_no_symbol_keep_the_order_of_their_strategy(desk: Desk) -> None:
    strategy = await desk.strategy()
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        await desk.queue(strategy, symbol=symbol)

    async def rows() -> list[OutboxRow]:
        return sorted(await desk.all(OutboxRow), key=lambda row: row.id)

    before, unnamed, after = [row.id for row in await rows()]
    async with desk.database.transaction() as session:
        await session.execute(update(OutboxRow).where(OutboxRow.id == unnamed).values(symbol=""))

    async def claimed_while_waits(waiting: int) -> int | None:
        async with desk.database.transaction() as session:
            await outbox.postpone(session, waiting, 60, 1, "not now")
        async with desk.database.transaction() as session:
            row = await outbox.claim(session)
            await session.execute(update(OutboxRow).values(available_at=text("now()")))
            return None if row is None else row.id

    # Behind one that waits it waits too, and another market goes on.
    assert await claimed_while_waits(before) == after
    async with desk.database.transaction() as session:
        await outbox.finish(session, before)
    assert await claimed_while_waits(unnamed) is None


async def test_rows_of_a_version_that_knows_no_symbol_go_by_their_ids_also_when_they_come_back(
    desk: Desk,
) -> None:
    strategy = await desk.strategy()
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        await desk.queue(strategy, symbol=symbol)
    rows = sorted(await desk.all(OutboxRow), key=lambda row: row.id)
    async with desk.database.transaction() as session:
        await session.execute(update(OutboxRow).where(OutboxRow.id == rows[1].id).values(symbol=""))
        # The first of them became due last.
        for number, row in enumerate(rows):
            due = text(f"now() - interval '{number + 1} seconds'")
            await session.execute(update(OutboxRow).where(OutboxRow.id == row.id).values(available_at=due))
    turns = []
    for _ in rows:
        async with desk.database.transaction() as session:
            claimed = await outbox.claim(session)
            assert claimed is not None
            turns.append(claimed.id)
            await outbox.finish(session, claimed.id)
    assert turns == [row.id for row in rows]
