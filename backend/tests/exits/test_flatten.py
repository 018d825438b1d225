"""A halt with `flatten`: all is cancelled and closed, and stays so until it ends."""

import asyncio
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.conftest import Account
from tests.desk import Desk, open_desk, running_worker, until, working_here
from tests.forked import run
from tests.stub_exchange import Fault, StubExchange
from tests.stub_exchange.faults import FOREVER
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import Order, OrderState
from tradingbot.positions import closing, flattening
from tradingbot.positions.models import Position
from tradingbot.risk import halts
from tradingbot.risk.halts import EVERYBODY, Target
from tradingbot.risk.models import Rule
from tradingbot.signals.models import SignalStatus

D = Decimal
pytestmark = pytest.mark.usefixtures("unhurried")
URL = "/api/v1/risk/halts"


async def halt(desk: Desk, target: Target) -> None:
    async with desk.database.transaction() as session:
        await halts.switch_on(session, target, "fire", flatten=True)


async def is_flat(desk: Desk) -> bool:
    return not await desk.all(Position, Position.quantity != 0) and await desk.is_over()


async def test_all_is_cancelled_and_closed_and_stays_so_until_the_halt_ends(
    desk: Desk, settings: Settings
) -> None:
    paper = await desk.strategy()
    spot = await desk.strategy(await desk.account())
    future = await desk.strategy(await desk.account(market=Market.FUTURE, mode=Mode.DEMO))
    async with working_here(settings):
        await desk.queue(paper, quantity=D("0.1"))
        await desk.queue(spot, quantity=D(2))
        await desk.queue(spot, quantity=D(3), symbol="ETHUSDT")
        await desk.queue(future, "sell", quantity=D(4))
        await desk.until_idle()
        await halt(desk, EVERYBODY)
        await until(lambda: is_flat(desk))
        signal = await desk.queue(spot)
        await desk.until_idle()
        assert (await desk.refusal(signal)).rule == Rule.HALTED
        closes = (await desk.orders())[4:]
        assert len(closes) == 4
        assert all(order.reduce_only and order.state == OrderState.FILLED for order in closes)
        async with desk.database.transaction() as session:
            await halts.switch_off(session, EVERYBODY)
        signal = await desk.queue(spot)
        await desk.until_idle()
    assert (await desk.signal(signal)).status == SignalStatus.ORDERED
    assert await desk.held(spot) == D("0.01")


@pytest.mark.parametrize("whose", ["user", "strategy"])
async def test_what_is_out_of_its_reach_is_left_alone(desk: Desk, settings: Settings, whose: str) -> None:
    mine = await desk.strategy()
    async with open_desk(settings, "other@mail.test") as other:
        kept = await (desk if whose == "strategy" else other).strategy()
        theirs = desk if whose == "strategy" else other
        async with working_here(settings):
            await desk.queue(mine, quantity=D("0.05"))
            await theirs.queue(kept, quantity=D("0.05"))
            await desk.until_idle()
            await halt(desk, Target(desk.user_id, mine if whose == "strategy" else None))

            async def is_closed() -> bool:
                return await desk.held(mine) == 0

            await until(is_closed)
            await flattening.flatten(desk.database)
            await desk.until_idle()
        assert await theirs.held(kept) == D("0.05")
        async with desk.database.transaction() as session:
            (market,) = await flattening.left(session, EVERYBODY)
            assert (market.symbol, market.held, market.open_orders) == ("BTCUSDT", D("0.05"), 0)
            assert await flattening.left(session, Target(desk.user_id, mine)) == []


async def test_an_entry_of_unknown_fate_that_turns_out_to_be_filled_is_closed_too(
    desk: Desk, settings: Settings, stub: StubExchange
) -> None:
    spot = await desk.strategy(await desk.account())
    silent = Fault("answer", method="GET", times=FOREVER)
    stub.faults.add(silent)
    stub.faults.add(Fault("drop", "after"))
    async with working_here(settings):
        await desk.queue(spot, quantity=D(1))

        async def is_unknown() -> bool:
            return bool(await desk.all(Order, Order.state == OrderState.UNKNOWN))

        await until(is_unknown)
        await halt(desk, Target(desk.user_id))

        async def is_to_be_cancelled() -> bool:
            return bool(await desk.all(Order, Order.cancel_requested_at.is_not(None)))

        await until(is_to_be_cancelled)
        stub.faults.clear()

        async def is_closed() -> bool:
            return len(await desk.orders()) == 2 and await is_flat(desk)

        await until(is_closed)
    assert stub.account.balances["BTC"] == StubExchange().account.balances["BTC"]


async def test_a_close_that_ends_in_vain_is_not_made_again_at_once(desk: Desk, settings: Settings) -> None:
    paper = await desk.strategy()
    async with working_here(settings):
        await desk.queue(paper, quantity=D("0.1"))
        await desk.until_idle()
    await halt(desk, EVERYBODY)
    await flattening.flatten(desk.database)
    await flattening.flatten(desk.database)
    assert len(await desk.orders()) == 2
    async with desk.database.transaction() as session:
        reject = "UPDATE orders SET state = 'rejected', updated_at = clock_timestamp() WHERE reduce_only"
        await session.execute(text(reject))
    await flattening.flatten(desk.database)
    assert len(await desk.orders()) == 2
    async with desk.database.transaction() as session:
        await session.execute(text("UPDATE orders SET updated_at = updated_at - interval '61 seconds'"))
    await flattening.flatten(desk.database)
    assert len(await desk.orders()) == 3


async def test_a_close_that_was_not_sent_is_made_again_at_once(desk: Desk, settings: Settings) -> None:
    """Nothing was left to close then, and now there is."""
    paper = await desk.strategy()
    async with working_here(settings):
        await desk.queue(paper, quantity=D("0.1"))
        await desk.until_idle()
    await halt(desk, EVERYBODY)
    await flattening.flatten(desk.database)
    async with desk.database.transaction() as session:
        await session.execute(text("UPDATE orders SET state = 'cancelled' WHERE reduce_only"))
    await flattening.flatten(desk.database)
    assert len(await desk.orders()) == 3


async def test_what_fails_keeps_nothing_else_from_being_closed(
    desk: Desk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = await desk.strategy()
    async with working_here(settings):
        for symbol in ("AUSDT", "BUSDT", "CUSDT"):
            await desk.queue(paper, quantity=D("0.05"), symbol=symbol)
        await desk.until_idle()
    closes, broken = closing.close, {row.id for row in await desk.all(Position, Position.symbol != "BUSDT")}

    async def close(session: AsyncSession, user_id: UUID, position_id: UUID, key: str) -> Order:
        if position_id in broken:
            raise UnavailableError("a lock is waited for too long")
        return await closes(session, user_id, position_id, key)

    monkeypatch.setattr(closing, "close", close)
    await halt(desk, EVERYBODY)
    await flattening.flatten(desk.database)
    assert [order.symbol for order in await desk.all(Order, Order.reduce_only)] == ["BUSDT"]


async def test_the_api(client: httpx.AsyncClient, account: Account) -> None:
    first = await client.put(f"{URL}/all", json={"flatten": True}, headers=account.headers)
    assert (first.status_code, first.json()["flatten"]) == (200, True)
    again = await client.put(f"{URL}/all", json={"reason": "fire"}, headers=account.headers)
    assert (again.json()["flatten"], again.json()["reason"]) == (True, "fire")
    assert (await client.delete(f"{URL}/all", headers=account.headers)).status_code == 204
    plain = await client.put(f"{URL}/all", headers=account.headers)
    assert plain.json()["flatten"] is False
    wrong = await client.put(f"{URL}/all", json={"flatten": "at once"}, headers=account.headers)
    assert wrong.status_code == 422


async def test_the_command_line_shows_what_is_left(desk: Desk, settings: Settings, tmp_path: Path) -> None:
    strategy = await desk.strategy()
    async with working_here(settings):
        await desk.queue(strategy, quantity=D("0.1"))
        await desk.until_idle()
    on = ("halt", "on", "--user", "desk@mail.test", "--flatten")
    nobody_works = await asyncio.to_thread(run, *on, "--wait", "0")
    assert nobody_works.returncode == 1
    assert "left to close: 1\n" in nobody_works.stdout
    lines = [line.split() for line in nobody_works.stdout.splitlines()[-2:]]
    assert lines[0] == ["USER", "STRATEGY", "SYMBOL", "HELD", "OPEN", "ORDERS"]
    assert lines[1][0] == "desk@mail.test"
    assert lines[1][3:] == ["BTCUSDT", "0.1", "0"]
    assert "The worker goes on" in nobody_works.stderr
    assert "desk@mail.test all strategies  closes all" in run("halt", "status").stdout
    async with running_worker(tmp_path):
        done = await asyncio.to_thread(run, *on)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "flat: nothing is held, and no order is open",
    )
    assert await desk.held(strategy) == 0


@pytest.mark.parametrize("seconds", ["-1", "soon", "nan", "1e9"])
def test_how_long_to_watch_is_a_number_of_seconds(account: Account, seconds: str) -> None:
    done = run("halt", "on", "--flatten", f"--wait={seconds}")
    assert done.returncode == 2
    assert "a number of seconds from 0 to 86400" in done.stderr
