"""Orders, fills, positions and refusals over HTTP: lists with filters, profit, closing, cancelling."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select, text

from tests.conftest import Account, make_account
from tests.test_webhooks import assert_problem
from tests.trading import NOON, SYMBOL, Desk, open_desk, trade
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.events.models import StoredEvent
from tradingbot.orders.models import Order, Side
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions import service as positions
from tradingbot.risk import halts
from tradingbot.risk import service as risk
from tradingbot.risk.evaluate import RefusalReason
from tradingbot.risk.halts import Target
from tradingbot.risk.models import Rule
from tradingbot.strategies.models import Strategy

# What is asked at once may take its time on a busy machine.
pytestmark = pytest.mark.usefixtures("unhurried")
D = Decimal
API = "/api/v1"


@pytest.fixture
async def desk(settings: Settings, account: Account) -> AsyncIterator[Desk]:
    database = Database(settings)
    yield await open_desk(database, account)
    await database.close()


@pytest.fixture
async def stranger(settings: Settings) -> Account:
    return await make_account(settings, "other@mail.test")


class Api:
    """What a user asks."""

    def __init__(self, client: httpx.AsyncClient, account: Account) -> None:
        self._client = client
        self._headers = account.headers

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self._client.get(API + path, params=parameters, headers=self._headers)

    async def items(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def post(self, path: str, **headers: str) -> httpx.Response:
        return await self._client.post(API + path, headers=self._headers | headers)

    async def close(self, position: str, key: str = "key-1") -> httpx.Response:
        return await self.post(f"/positions/{position}/close", **{"Idempotency-Key": key})


@pytest.fixture
def api(client: httpx.AsyncClient, account: Account) -> Api:
    return Api(client, account)


@pytest.fixture
def other(client: httpx.AsyncClient, stranger: Account) -> Api:
    return Api(client, stranger)


async def second_strategy(desk: Desk) -> Desk:
    async with desk.database.transaction() as session:
        strategy = Strategy(
            user_id=desk.user_id,
            name="second",
            webhook_token_hash="0" * 64,
            exchange_account_id=desk.exchange_account_id,
        )
        session.add(strategy)
        await session.flush()
        return Desk(desk.database, desk.user_id, strategy.id, desk.exchange_account_id)


async def refuse(desk: Desk, rule: Rule = Rule.HALTED, **signal: Any) -> UUID:
    stored = await desk.signal(**signal)
    async with desk.database.transaction() as session:
        assert await risk.store_refusal(session, stored, RefusalReason(rule, "because"))
    return stored.id


async def queued(desk: Desk) -> list[tuple[str, UUID | None]]:
    async with desk.database.transaction() as session:
        rows = (await session.execute(select(OutboxRow).order_by(OutboxRow.id))).scalars()
        return [(row.task, row.order_id) for row in rows]


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


async def test_an_order_is_shown_with_its_fills(api: Api, desk: Desk) -> None:
    signal = await desk.signal()
    order = await desk.order(quantity="2", price=D("100.50"), signal_id=signal.id, state="filled")
    await desk.book(order, trade("1.5", "101", fee="0.1", at=NOON + timedelta(seconds=1), trade_id="b"))
    await desk.book(order, trade("0.5", "105", fee="0.2", at=NOON, trade_id="a"))
    shown = (await api.get(f"/orders/{order.id}")).json()
    assert [fill["exchange_trade_id"] for fill in shown["fills"]] == ["a", "b"]
    assert [fill["fee"] for fill in shown["fills"]] == ["0.2", "0.1"]
    assert (shown["quantity"], shown["filled_quantity"], shown["average_price"]) == ("2", "2", "102")
    assert (shown["price"], shown["state"], shown["signal_id"]) == ("100.5", "filled", str(signal.id))
    del shown["fills"]
    assert await api.items("/orders") == [shown]


async def test_orders_are_filtered(api: Api, desk: Desk) -> None:
    second = await second_strategy(desk)
    old = await desk.order(state="filled", created_at=NOON)
    sell = await desk.order(
        Side.SELL, symbol="ETHUSDT", state="rejected", created_at=NOON + timedelta(hours=1)
    )
    new = await second.order(state="unknown", created_at=NOON + timedelta(hours=2))
    for parameters, expected in (
        ({}, [new, sell, old]),
        ({"strategy_id": second.strategy_id}, [new]),
        ({"symbol": "ETHUSDT"}, [sell]),
        ({"side": "buy"}, [new, old]),
        ({"state": "filled"}, [old]),
        ({"state": ["filled", "unknown"]}, [new, old]),
        ({"since": "2026-01-05T13:00:00Z"}, [new, sell]),
        ({"until": "2026-01-05T14:00:00+01:00"}, [old]),
        ({"since": "2026-01-05T12:30:00Z", "until": "2026-01-05T14:00:00Z"}, [sell]),
        ({"symbol": "nothing"}, []),
    ):
        assert ids(await api.items("/orders", **parameters)) == [str(order.id) for order in expected]


async def test_fills_are_filtered(api: Api, desk: Desk) -> None:
    second = await second_strategy(desk)
    first = await desk.hold("1", at=NOON)
    sold = await desk.hold("-1", "110", symbol="ETHUSDT", at=NOON + timedelta(hours=1))
    last = await second.hold("2", at=NOON + timedelta(hours=2))
    for parameters, expected in (
        ({}, [last, sold, first]),
        ({"strategy_id": desk.strategy_id}, [sold, first]),
        ({"order_id": sold.id}, [sold]),
        ({"symbol": SYMBOL}, [last, first]),
        ({"side": "sell"}, [sold]),
        ({"since": "2026-01-05T13:00:00Z"}, [last, sold]),
        ({"until": "2026-01-05T13:00:00Z"}, [first]),
    ):
        items = await api.items("/fills", **parameters)
        assert [item["order_id"] for item in items] == [str(order.id) for order in expected]


async def test_refusals_are_filtered(api: Api, desk: Desk) -> None:
    second = await second_strategy(desk)
    first = await refuse(desk, Rule.HALTED)
    middle = await refuse(desk, Rule.STALE, symbol="ETHUSDT")
    last = await refuse(second, Rule.HALTED)
    items = await api.items("/refusals")
    assert (items[1]["symbol"], items[1]["rule"], items[1]["reason"]) == ("ETHUSDT", "stale", "because")
    moment = items[1]["created_at"]
    for parameters, expected in (
        ({}, [last, middle, first]),
        ({"strategy_id": desk.strategy_id}, [middle, first]),
        ({"symbol": "ETHUSDT"}, [middle]),
        ({"rule": "halted"}, [last, first]),
        ({"since": moment}, [last, middle]),
        ({"until": moment}, [first]),
    ):
        items = await api.items("/refusals", **parameters)
        assert [item["signal_id"] for item in items] == [str(signal_id) for signal_id in expected]


async def test_positions_are_filtered(api: Api, desk: Desk) -> None:
    second = await second_strategy(desk)
    await desk.hold("1", symbol="LONG")
    await desk.hold("-1", symbol="SHORT")
    await second.hold("1", symbol="FLAT")
    await second.hold("-1", symbol="FLAT")
    moment = (await api.items("/positions"))[1]["updated_at"]
    for parameters, expected in (
        ({}, ["FLAT", "SHORT", "LONG"]),
        ({"strategy_id": second.strategy_id}, ["FLAT"]),
        ({"symbol": "SHORT"}, ["SHORT"]),
        ({"side": "long"}, ["LONG"]),
        ({"side": "short"}, ["SHORT"]),
        ({"side": "flat"}, ["FLAT"]),
        ({"since": moment}, ["FLAT", "SHORT"]),
        ({"until": moment}, ["LONG"]),
    ):
        items = await api.items("/positions", **parameters)
        assert [item["symbol"] for item in items] == expected


@pytest.mark.parametrize("path", ["/orders", "/fills", "/positions", "/refusals"])
async def test_pages_hold_everything_once_in_order(api: Api, desk: Desk, path: str) -> None:
    for number in range(5):
        # Some at the very same time: then the id decides.
        await desk.hold("1", symbol=f"S{number}", at=NOON + timedelta(seconds=number // 3))
        await refuse(desk, symbol=f"S{number}")
    async with desk.database.transaction() as session:
        for row in (await session.execute(select(Order))).scalars():
            row.created_at = NOON
    everything = ids(await api.items(path, limit=200))
    assert len(set(everything)) == 5
    found: list[str] = []
    parameters: dict[str, Any] = {"limit": 2}
    while True:
        page = (await api.get(path, **parameters)).json()
        found += ids(page["items"])
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert found == everything


@pytest.mark.parametrize("path", ["/orders", "/fills", "/positions", "/refusals"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"cursor": "x"},
        {"strategy_id": "x"},
        {"symbol": "a\x00b"},
        {"since": "yesterday"},
        {"since": "2026-01-05T12:00:00"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"side": "up"},
        {"state": "lost"},
        {"rule": "none"},
    ],
)
async def test_invalid_parameters(api: Api, path: str, parameters: dict[str, str]) -> None:
    (name,) = parameters
    known = {
        "/orders": {"side", "state"},
        "/fills": {"side"},
        "/positions": {"side"},
        "/refusals": {"rule"},
    }
    answer = await api.get(path, **parameters)
    if name in {"side", "state", "rule"} - known[path]:
        assert answer.status_code == 200
    else:
        assert_problem(answer, 422)


async def test_a_position_shows_its_profit_at_the_price_that_it_names(api: Api, desk: Desk) -> None:
    await desk.hold("2", "100", fee="0.5", at=NOON)
    await desk.hold("-1", "130", fee="0.5", at=NOON + timedelta(seconds=1))
    (shown,) = await api.items("/positions")
    assert (shown["quantity"], shown["average_price"], shown["realised_pnl"]) == ("1", "100", "30")
    assert (shown["fees"], shown["unrealised_pnl"]) == ("1", "30")
    assert (shown["last_price"], shown["last_price_source"]) == ("130", "fill")
    assert shown["last_price_at"] == "2026-01-05T12:00:01Z"
    async with desk.database.transaction() as session:
        await positions.mark(session, desk.strategy_id, SYMBOL, D("90"), NOON + timedelta(seconds=2))
    shown = (await api.get(f"/positions/{shown['id']}")).json()
    assert (shown["last_price"], shown["last_price_source"], shown["unrealised_pnl"]) == (
        "90",
        "signal",
        "-10",
    )
    assert shown["last_price_at"] == "2026-01-05T12:00:02Z"


async def test_the_summary_adds_up_by_strategy(api: Api, desk: Desk) -> None:
    second = await second_strategy(desk)
    assert await api.items("/positions/summary") == []
    await second.hold("-2", "50", fee="1")
    await desk.hold("2", "100", fee="0.5")
    await desk.hold("-1", "110", fee="0.5", at=NOON + timedelta(seconds=1))
    await desk.hold("1", "10", symbol="ETHUSDT", fee="0.25")
    one = {
        "strategy_id": str(desk.strategy_id),
        "realised_pnl": "10",
        "unrealised_pnl": "10",
        "fees": "1.25",
        "net_pnl": "18.75",
    }
    two = {
        "strategy_id": str(second.strategy_id),
        "realised_pnl": "0",
        "unrealised_pnl": "0",
        "fees": "1",
        "net_pnl": "-1",
    }
    assert await api.items("/positions/summary") == [two, one]
    assert await api.items("/positions/summary", strategy_id=second.strategy_id) == [two]
    first_page = (await api.get("/positions/summary", limit=1)).json()
    assert first_page["items"] == [two]
    last_page = (await api.get("/positions/summary", limit=1, cursor=first_page["next_cursor"])).json()
    assert last_page == {"items": [one], "next_cursor": None}


async def test_a_close_is_an_order_for_the_worker_once_for_each_key(api: Api, desk: Desk) -> None:
    await desk.hold("2", "100")
    (position,) = await api.items("/positions")
    answers = await asyncio.gather(*(api.close(position["id"]) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [202] * 5
    order = answers[0].json()
    assert ids([answer.json() for answer in answers]) == [order["id"]] * 5
    assert (order["side"], order["quantity"], order["price"]) == ("sell", "2", "100")
    assert (order["reduce_only"], order["state"], order["signal_id"]) == (True, "new", None)
    assert await queued(desk) == [("order", UUID(order["id"]))]
    async with desk.database.transaction() as session:
        events = (await session.execute(select(StoredEvent.type).order_by(StoredEvent.sequence))).scalars()
        assert list(events) == ["fill", "position", "order"]
    # Another key closes nothing more, and goes on to say so.
    answer = await api.close(position["id"], "key-2")
    assert_problem(answer, 409)
    assert f"cancel its order {order['id']} first" in answer.json()["detail"]


async def test_closes_at_once_under_different_keys_close_once(api: Api, desk: Desk) -> None:
    await desk.hold("-2", "100")
    (position,) = await api.items("/positions")
    answers = await asyncio.gather(*(api.close(position["id"], f"key-{n}") for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]
    (order,) = [answer.json() for answer in answers if answer.status_code == 202]
    assert (order["side"], order["quantity"]) == ("buy", "2")


async def test_a_close_is_stored_less_what_others_close_meanwhile(api: Api, desk: Desk) -> None:
    """The worker cancels those, and makes it of all that is held; one of the version before does neither."""
    await desk.hold("5")
    part = await desk.order(Side.SELL, "3", state="partially_filled")
    await desk.book(part, trade("1"))
    await desk.order(Side.BUY, "7", state="submitted")
    await desk.order(Side.SELL, "9", symbol="ETHUSDT", state="submitted")
    (position,) = await api.items("/positions")
    order = (await api.close(position["id"])).json()
    assert (order["side"], order["quantity"]) == ("sell", "2")
    assert (await api.close(position["id"], "key-2")).status_code == 409
    assert (await api.post(f"/orders/{order['id']}/cancel")).status_code == 202
    assert (await api.close(position["id"], "key-3")).status_code == 202


async def test_a_signal_that_is_decided_at_the_same_time_waits_for_the_close(api: Api, desk: Desk) -> None:
    await desk.hold("1")
    (position,) = await api.items("/positions")
    async with desk.database.transaction() as session:
        assert await positions.expected_quantity(session, desk.strategy_id, SYMBOL) == 1
        closing = asyncio.create_task(api.close(position["id"]))
        done, _ = await asyncio.wait([closing], timeout=0.5)
        assert not done
        session.add(
            Order(
                user_id=desk.user_id,
                strategy_id=desk.strategy_id,
                exchange_account_id=desk.exchange_account_id,
                client_order_id="tb-decided",
                symbol=SYMBOL,
                side=Side.SELL,
                quantity=D(1),
            )
        )
        await session.flush()
    assert (await closing).status_code == 202


async def test_a_close_is_allowed_while_halted_and_by_a_strategy_that_is_off(api: Api, desk: Desk) -> None:
    await desk.hold("1")
    await desk.change(is_active=False)
    async with desk.database.transaction() as session:
        await halts.switch_on(session, Target(desk.user_id), None)
    (position,) = await api.items("/positions")
    assert (await api.close(position["id"])).status_code == 202


async def test_what_cannot_be_closed(api: Api, desk: Desk) -> None:
    await desk.hold("1")
    await desk.hold("1", symbol="ETHUSDT")
    (eth, btc) = ids(await api.items("/positions"))
    assert (await api.close(eth, "used")).status_code == 202
    answer = await api.close(btc, "used")
    assert_problem(answer, 409)
    assert "Idempotency-Key was used" in answer.json()["detail"]
    await desk.hold("-1")
    answer = await api.close(btc)
    assert_problem(answer, 409)
    assert answer.json()["detail"] == "The position is closed."
    assert_problem(await api.post(f"/positions/{btc}/close"), 422)
    for key in ("", "x" * 129, "with space"):
        assert_problem(await api.close(btc, key), 422)


async def test_one_key_for_two_positions_at_once_closes_one(api: Api, desk: Desk) -> None:
    await desk.hold("1")
    await desk.hold("1", symbol="ETHUSDT")
    positions = ids(await api.items("/positions"))
    answers = await asyncio.gather(*(api.close(position) for position in positions))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert len(await queued(desk)) == 1


async def test_cancelling_asks_the_worker_once(api: Api, desk: Desk) -> None:
    order = await desk.order(state="submitted")
    first = await api.post(f"/orders/{order.id}/cancel")
    again = await api.post(f"/orders/{order.id}/cancel")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["cancel_requested_at"] is not None
    assert again.json()["cancel_requested_at"] == first.json()["cancel_requested_at"]
    assert await queued(desk) == [("cancel", order.id)]


@pytest.mark.parametrize("state", ["filled", "cancelled", "rejected"])
async def test_what_is_over_cannot_be_cancelled(api: Api, desk: Desk, state: str) -> None:
    order = await desk.order(state=state)
    answer = await api.post(f"/orders/{order.id}/cancel")
    assert_problem(answer, 409)
    assert state in answer.json()["detail"]
    assert await queued(desk) == []


async def test_a_stranger_sees_and_changes_nothing(api: Api, other: Api, desk: Desk) -> None:
    order = await desk.hold("1")
    waiting = await desk.order(state="submitted")
    await refuse(desk)
    (position,) = ids(await api.items("/positions"))
    for path in ("/orders", "/fills", "/positions", "/refusals", "/positions/summary"):
        assert await api.items(path)
        assert await other.items(path) == []
        assert await other.items(path, strategy_id=desk.strategy_id) == []
    assert await other.items("/fills", order_id=order.id) == []
    assert_problem(await other.get(f"/orders/{order.id}"), 404)
    assert_problem(await other.get(f"/positions/{position}"), 404)
    assert_problem(await other.close(position), 404)
    assert_problem(await other.post(f"/orders/{waiting.id}/cancel"), 404)
    assert await queued(desk) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/orders/{id}"),
        ("POST", "/orders/{id}/cancel"),
        ("GET", "/positions/{id}"),
        ("POST", "/positions/{id}/close"),
    ],
)
async def test_what_is_not_there(client: httpx.AsyncClient, account: Account, method: str, path: str) -> None:
    headers = account.headers | {"Idempotency-Key": "key"}
    for given, status in ((str(uuid4()), 404), ("x", 422)):
        answer = await client.request(method, API + path.format(id=given), headers=headers)
        assert_problem(answer, status)
    assert_problem(await client.request(method, API + path.format(id=uuid4())), 401)


async def test_a_key_that_only_reads_neither_closes_nor_cancels(api: Api, desk: Desk) -> None:
    await desk.hold("1")
    order = await desk.order(state="submitted")
    (position,) = ids(await api.items("/positions"))
    async with desk.database.transaction() as session:
        await session.execute(text("UPDATE api_keys SET scopes = '{read}'"))
    assert_problem(await api.close(position), 403)
    assert_problem(await api.post(f"/orders/{order.id}/cancel"), 403)
    assert await queued(desk) == []
