"""A person says what became of an order of which the exchange says nothing."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import update

from tests.conftest import Account
from tests.desk import SYMBOL, Desk, open_desk, until
from tests.exits.steps import SILENT, Say, close, has_state, queue, spot
from tests.fake_exchange import open_bench
from tests.forked import run
from tests.stub_exchange import Fault, StubExchange
from tests.test_webhooks import assert_problem
from tests.trading import open_desk as open_api_desk
from tests.trading import trade
from tradingbot.cli.orders import COLUMNS
from tradingbot.core.database import Database
from tradingbot.core.errors import ConflictError, NotFoundError, UnprocessableError
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import OrderReport
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.orders import repository, service
from tradingbot.orders.models import Order, OrderState
from tradingbot.orders.settling import Settlement, settle
from tradingbot.outbox import repository as outbox
from tradingbot.outbox.models import OutboxRow, Task
from tradingbot.positions import service as positions
from tradingbot.signals.models import SignalStatus

D = Decimal
pytestmark = pytest.mark.usefixtures("unhurried")
NOTHING = Settlement(D(0), None, D(0), "it is not in its list", "somebody")


def filled(quantity: str, price: str | None = "50000", fee: str = "0") -> Settlement:
    return replace(
        NOTHING, filled_quantity=D(quantity), price=None if price is None else D(price), fee=D(fee)
    )


NOTHING_MORE = filled("1", None)


async def say_of(desk: Desk, order: Order, said: Settlement) -> Order:
    async with desk.database.transaction() as session:
        return await settle(session, desk.user_id, order.id, said)


async def unknown(desk: Desk, number: int = 0) -> Order:
    """Return the order of this number once it has been `unknown` for a minute."""
    await until(lambda: has_state(desk, number, OrderState.UNKNOWN))
    order = (await desk.orders())[number]
    earlier = Order.submitted_at - timedelta(seconds=61)
    async with desk.database.transaction() as session:
        await session.execute(update(Order).where(Order.id == order.id).values(submitted_at=earlier))
    return order


def goes_silent(stub: StubExchange, *, taking: bool) -> None:
    """Takes the next order, or does not, and says nothing of it nor of any other from then on."""
    stub.faults.add(replace(SILENT))
    stub.faults.add(Fault("drop", "after" if taking else "before"))


async def test_what_waited_for_an_order_goes_on_when_it_is_settled(
    desk: Desk, stub: StubExchange, say: Say
) -> None:
    strategy = await spot(desk)
    goes_silent(stub, taking=False)
    await queue(desk, strategy, "buy", "1")
    order = await unknown(desk, 0)
    waiting = await queue(desk, strategy, "buy", "2")
    settled = await say_of(desk, order, NOTHING)
    assert (settled.state, settled.reason) == (
        OrderState.CANCELLED,
        "settled by somebody: it is not in its list",
    )
    assert settled.settled_at is not None
    await desk.until_idle()
    assert (await desk.signal(waiting)).status == SignalStatus.ORDERED
    assert await desk.held(strategy) == D(2)
    assert [order.executed for order in stub.account.orders] == [D(2)]
    shown = [event for event in await desk.events("order") if event["id"] == str(order.id)]
    assert (shown[-1]["state"], shown[-1]["settled_at"] is not None) == ("cancelled", True)


async def test_what_was_filled_is_booked_once(
    desk: Desk, stub: StubExchange, say: Say, told: list[tuple[str, str]]
) -> None:
    strategy = await spot(desk)
    goes_silent(stub, taking=True)
    await queue(desk, strategy, "buy", "2")
    order = await unknown(desk, 0)
    settled = await say_of(desk, order, filled("2", "49000", "3"))
    assert (settled.state, settled.average_price) == (OrderState.FILLED, D(49000))
    stub.faults.clear()
    await desk.until_idle()
    await say(strategy, "flat")
    (booked, exit_) = await desk.fills()
    assert (booked.exchange_trade_id, booked.quantity, booked.fee) == (f"settled-{order.id}", D(2), D(3))
    assert exit_.quantity == D(2)
    assert await desk.held(strategy) == 0


async def test_the_rest_of_an_exit_is_made_again(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "2")
    goes_silent(stub, taking=False)
    await queue(desk, strategy, "flat")
    order = await unknown(desk, 1)
    await say_of(desk, order, filled("0.5"))
    stub.faults.clear()
    # The half coin is gone at the exchange, too.
    stub.account.balances["BTC"] -= D("0.5")
    await desk.until_idle()
    assert [one.quantity for one in await desk.orders()] == [D(2), D(2), D("1.5")]
    assert await desk.held(strategy) == 0


async def test_an_exit_that_was_cancelled_before_ends_there(desk: Desk, stub: StubExchange, say: Say) -> None:
    strategy = await spot(desk)
    await say(strategy, "long", "2")
    goes_silent(stub, taking=False)
    await queue(desk, strategy, "flat")
    order = await unknown(desk, 1)
    async with desk.database.transaction() as session:
        await service.request_cancel(session, desk.user_id, order.id)
    await say_of(desk, order, NOTHING)
    stub.faults.clear()
    await desk.until_idle()
    assert len(await desk.orders()) == 2
    assert await desk.held(strategy) == D(2)
    # A close by hand may follow.
    await close(desk)
    await desk.until_idle()
    assert await desk.held(strategy) == 0


async def stored(desk: Desk, state: OrderState, **columns: Any) -> Order:
    """Stores an order of 2 coins that was sent once."""
    account = await desk.account()
    values = {"quantity": D(2), "attempts": 1, "state": state} | columns
    order = Order(
        user_id=desk.user_id,
        strategy_id=await desk.strategy(account),
        exchange_account_id=account,
        client_order_id=f"tb{uuid4().hex[:30]}",
        symbol=SYMBOL,
        side="buy",
        **values,
    )
    async with desk.database.transaction() as session:
        session.add(order)
        await session.flush()
        await session.refresh(order)
    return order


async def book(desk: Desk, order: Order, quantity: str, price: str) -> None:
    async with desk.database.transaction() as session:
        await positions.apply(session, order, trade(quantity, price))


async def test_what_is_booked_already_is_not_booked_again(desk: Desk) -> None:
    order = await stored(desk, OrderState.PARTIALLY_FILLED)
    await book(desk, order, "1", "40000")
    settled = await say_of(desk, order, filled("2", "50000"))
    assert (settled.state, settled.filled_quantity) == (OrderState.FILLED, D(2))
    assert settled.average_price == D(45000)
    other = await stored(desk, OrderState.PARTIALLY_FILLED)
    await book(desk, other, "1", "40000")
    settled = await say_of(desk, other, NOTHING_MORE)
    assert (settled.state, settled.filled_quantity) == (OrderState.CANCELLED, D(1))
    assert len(await desk.fills()) == 3


@pytest.mark.parametrize(
    ("state", "columns", "said", "error", "why"),
    [
        (OrderState.FILLED, {}, NOTHING, ConflictError, "The order is filled"),
        (OrderState.REJECTED, {}, NOTHING, ConflictError, "The order is rejected"),
        (OrderState.NEW, {}, NOTHING, ConflictError, "was not sent: cancel it"),
        (OrderState.SUBMITTED, {"ago": 30}, NOTHING, ConflictError, r"ask again in \d+ seconds"),
        (OrderState.UNKNOWN, {"ago": 30}, NOTHING_MORE, ConflictError, r"ask again in \d+ seconds"),
        (OrderState.PARTIALLY_FILLED, {"ago": 0}, NOTHING_MORE, ConflictError, r"ask again in \d+ seconds"),
        (OrderState.UNKNOWN, {}, filled("2", "9" * 20), UnprocessableError, "at most 1000000000000000"),
        (OrderState.UNKNOWN, {}, filled("2", "1", "9" * 20), UnprocessableError, "at most 1000000000000000"),
        (OrderState.UNKNOWN, {}, filled("2.1"), UnprocessableError, "from 1, which is booked, to 2, "),
        (OrderState.UNKNOWN, {}, filled("0.9"), UnprocessableError, "from 1, which is booked, to 2, "),
        (OrderState.UNKNOWN, {}, filled("2", None), UnprocessableError, "At what price were 1 filled"),
        (OrderState.UNKNOWN, {}, filled("1"), UnprocessableError, "leave out price and fee"),
        (OrderState.UNKNOWN, {}, filled("1", None, "3"), UnprocessableError, "leave out price and fee"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    desk: Desk,
    state: OrderState,
    columns: dict[str, Any],
    said: Settlement,
    error: type[Exception],
    why: str,
) -> None:
    order = await stored(desk, state, submitted_at=utc_now() - timedelta(seconds=columns.get("ago", 61)))
    await book(desk, order, "1", "40000")
    with pytest.raises(error, match=why):
        await say_of(desk, order, said)
    (after,) = await desk.orders()
    assert (after.state, after.settled_at, after.filled_quantity) == (state, None, D(1))
    assert len(await desk.fills()) == 1


async def test_an_order_of_another_user_is_not_there(desk: Desk, settings: Settings) -> None:
    order = await stored(desk, OrderState.UNKNOWN)
    async with open_desk(settings, "other@mail.test") as other:
        with pytest.raises(NotFoundError):
            await say_of(other, order, NOTHING)
    assert (await desk.order()).settled_at is None


async def test_an_order_that_was_sent_long_ago_can_be_settled(desk: Desk) -> None:
    order = await stored(desk, OrderState.SUBMITTED, submitted_at=utc_now() - timedelta(seconds=61))
    assert (await say_of(desk, order, NOTHING)).state == OrderState.CANCELLED


@pytest.mark.parametrize(("quantity", "differs"), [("2", False), ("1", True)])
async def test_what_the_exchange_says_later_is_not_booked(
    desk: Desk, settings: Settings, quantity: str, differs: bool
) -> None:
    """A worker had asked before, and gets its answer now."""
    order = await stored(desk, OrderState.UNKNOWN)
    (account,) = await desk.all(ExchangeAccount)
    await say_of(desk, order, filled("2"))
    async with open_bench(desk, settings) as bench:
        report = OrderReport(order.client_order_id, "x1", OrderState.CANCELLED, (trade(quantity, "1"),))
        await bench.executor.placer.adopt(order.id, report, account)
        titles = [title for _, title, _ in bench.told.messages]
    after = await desk.order()
    assert (after.state, after.filled_quantity, len(await desk.fills())) == (OrderState.FILLED, D(2), 1)
    assert titles == (["BTCUSDT: a settled order differs"] if differs else [])


async def test_what_waits_for_another_attempt_is_worked_on_at_once(desk: Desk) -> None:
    order = await stored(desk, OrderState.UNKNOWN)
    async with desk.database.transaction() as session:
        await outbox.add(session, Task.ORDER, order.strategy_id, SYMBOL, order_id=order.id)
        row = await outbox.claim(session)
        assert row is not None
        await outbox.postpone(session, row.id, 3600, 1, "unknown")
    async with desk.database.transaction() as session:
        assert await outbox.claim(session) is None
    await say_of(desk, order, NOTHING)
    async with desk.database.transaction() as session:
        assert await outbox.claim(session) is not None


async def test_exchanges_are_not_asked_about_settled_orders(desk: Desk, settings: Settings) -> None:
    """As they are about others that were cancelled just now."""
    cancelled = await stored(desk, OrderState.CANCELLED)
    order = await stored(desk, OrderState.UNKNOWN)
    await say_of(desk, order, NOTHING)
    async with desk.database.transaction() as session:
        accounts = await repository.accounts_to_reconcile(session, 60)
        asked = [
            await repository.to_reconcile(session, one.exchange_account_id, 0, 60, 9)
            for one in (cancelled, order)
        ]
    assert [account.id for account in accounts] == [cancelled.exchange_account_id]
    assert asked == [[cancelled.id], []]


async def test_the_api(client: httpx.AsyncClient, account: Account, settings: Settings) -> None:
    database = Database(settings)
    desk = await open_api_desk(database, account)
    order = await desk.order(quantity="2", state="unknown")
    url = f"/api/v1/orders/{order.id}/settle"
    headers = account.headers
    answer = await client.post(url, json={"filled_quantity": "3", "reason": "seen"}, headers=headers)
    assert_problem(answer, 422)
    assert "to 2, which was ordered" in answer.json()["detail"]
    for wrong in ({"filled_quantity": -1}, {"reason": "x" * 401}, {"price": 0}, {"state": "filled"}):
        body = {"filled_quantity": 0, "reason": "seen"} | wrong
        assert_problem(await client.post(url, json=body, headers=headers), 422)
    said = {"filled_quantity": "0.5", "price": 50000, "fee": "1.5", "reason": "seen in its list"}
    answer = await client.post(url, json=said, headers=headers)
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["state"], shown["filled_quantity"], shown["average_price"]) == ("cancelled", "0.5", "50000")
    assert re.fullmatch(r"settled by API key [0-9a-f-]{36}: seen in its list", shown["reason"])
    assert shown["settled_at"] is not None
    assert_problem(await client.post(url, json=said, headers=headers), 409)
    await database.close()


async def test_the_command_line(desk: Desk) -> None:
    order = await stored(desk, OrderState.UNKNOWN, reason="time-out")
    await stored(desk, OrderState.FILLED)
    head, line = run("order", "list").stdout.splitlines()
    assert head.split() == list(COLUMNS)
    assert line.split()[:2] == [str(order.id), "desk@mail.test"]
    assert line.split()[-1] == "time-out"
    assert len(run("order", "list", "--state", "filled", "--state", "unknown").stdout.splitlines()) == 3
    assert len(run("order", "list", "--user", "other@mail.test").stdout.splitlines()) == 1
    assert len(run("order", "list", "--strategy", "none").stdout.splitlines()) == 1
    (listed,) = json.loads(run("order", "list", "--json", "--user", "desk@mail.test").stdout)
    assert (listed["id"], listed["quantity"], listed["state"]) == (str(order.id), "2", "unknown")
    asked = run("order", "cancel", str(order.id))
    assert asked.stdout == "asked the worker to cancel buy 2 BTCUSDT; it is unknown now\n"
    (row,) = await desk.all(OutboxRow)
    assert (row.task, row.order_id) == ("cancel", order.id)
    settling = ("order", "settle", str(order.id), "--reason", "seen")
    done = run(*settling, "--filled", "1.5", "--price", "50000", "--fee", "2")
    assert done.stdout == "settled buy 2 BTCUSDT: cancelled, 1.5 of 2 filled\n"
    settled = next(one for one in await desk.orders() if one.id == order.id)
    assert settled.reason == "settled by an operator: seen"
    (fill,) = await desk.fills()
    assert (fill.quantity, fill.price, fill.fee) == (D("1.5"), D(50000), D(2))
    again = run(*settling, "--filled", "0")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "The order is cancelled: there is nothing to settle.\n"


NOBODYS = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("settle", NOBODYS, "--reason", "x", "--filled", "0"), f"There is no order {NOBODYS}", 1),
        (("cancel", NOBODYS), f"There is no order {NOBODYS}", 1),
        (("settle", "7", "--reason", "x", "--filled", "0"), "`tradingbot order list` shows them", 2),
        (("settle", NOBODYS, "--reason", "x", "--filled", "-1"), "--filled: ", 2),
        (("settle", NOBODYS, "--reason", "x", "--filled", "NaN"), "--filled: ", 2),
        (("settle", NOBODYS, "--reason", " ", "--filled", "0"), "--reason: ", 2),
        (("settle", NOBODYS, "--reason", "x", "--filled", "1", "--price", "0"), "--price: ", 2),
        (("settle", NOBODYS, "--reason", "x"), "--filled", 2),
        (("list", "--limit", "0"), "1 to 1000", 2),
        (("list", "--state", "lost"), "invalid choice", 2),
    ],
)
def test_what_the_command_line_refuses(
    environment: dict[str, str], arguments: tuple[str, ...], said: str, code: int
) -> None:
    refused = run("order", *arguments)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
