"""Live events over real sockets: tickets, order, what was missed, and what is told over plain HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.conftest import Account, execute, make_account
from tests.test_webhooks import assert_problem
from tests.ws_client import (
    close_code,
    events,
    listen,
    live_server,
    open_live,
    protocols,
    publishing,
    receive,
    record_events,
    refusal,
    sequences,
    url,
    user_id_of,
)
from tradingbot.core.database import Database
from tradingbot.core.redis import make_redis
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, new_token
from tradingbot.events.schemas import CHANNEL, Event
from tradingbot.events.service import EventType, forget_old, record


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = make_redis(settings)
    yield client
    await client.aclose()


@pytest.fixture
async def elsewhere(settings: Settings) -> AsyncIterator[Database]:
    async with publishing(settings) as database:
        yield database


@pytest.fixture
async def user(elsewhere: Database, account: Account) -> UUID:
    return await user_id_of(elsewhere, account)


@pytest.fixture
async def port(settings: Settings) -> AsyncIterator[int]:
    async with live_server(settings) as port:
        yield port


async def test_events_of_another_process_come_live_and_complete(
    port: int, account: Account, elsewhere: Database, user: UUID
) -> None:
    socket = await listen(port, account)
    assert socket.subprotocol == "tradingbot.v1"
    await record_events(elsewhere, user, 2, price="64250.1")
    first, second = await events(socket, 2)
    assert (first["sequence"], first["type"], second["sequence"]) == (1, "order", 2)
    assert first["data"] == {"number": 0, "price": "64250.1"}
    assert datetime.fromisoformat(first["at"]).tzinfo is not None
    assert set(first) == {"sequence", "type", "data", "at"}
    await socket.close()


async def test_a_client_that_comes_back_gets_what_it_missed_and_then_goes_on_live(
    port: int, account: Account, elsewhere: Database, user: UUID, settings: Settings
) -> None:
    await record_events(elsewhere, user, settings.websocket_queue_size * 2 + 10)
    socket = await listen(port, account, 3)
    missed = settings.websocket_queue_size * 2 + 7
    assert await sequences(socket, missed) == list(range(4, missed + 4))
    await record_events(elsewhere, user, 2)
    assert await sequences(socket, 2) == [missed + 4, missed + 5]
    replayed = await listen(port, account, missed + 3)
    assert await events(replayed, 2) == (await page(port, account, missed + 3))["items"]
    await replayed.close()
    await socket.close()


async def page(port: int, account: Account, after: int | None = None, limit: int = 50) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        parameters = {"limit": limit} | ({} if after is None else {"after": after})
        answer = await client.get("/api/v1/events", params=parameters, headers=account.headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_without_a_number_a_client_begins_now(
    port: int, account: Account, elsewhere: Database, user: UUID
) -> None:
    await record_events(elsewhere, user, 3)
    socket = await open_live(port, account)
    ready = await receive(socket)
    assert (ready["type"], ready["sequence"]) == ("ready", 3)
    assert ready["data"] == {"postgresql": "ok", "redis": "ok", "worker": "ok"}
    await record_events(elsewhere, user, 1)
    assert await sequences(socket, 1) == [4]
    await socket.close()


async def test_order_without_gaps_while_many_write_at_once(
    settings: Settings, port: int, account: Account, elsewhere: Database, user: UUID
) -> None:
    sockets = [await listen(port, account, 0) for _ in range(3)]
    async with publishing(settings) as third:
        writers = [record_events(database, user, 20) for database in (elsewhere, third) for _ in range(10)]
        received, *_ = await asyncio.gather(
            asyncio.gather(*(sequences(socket, 400) for socket in sockets)), *writers
        )
    assert received == [list(range(1, 401))] * 3
    for socket in sockets:
        await socket.close()


async def test_a_number_that_redis_lost_is_read_from_postgresql(
    settings: Settings, port: int, account: Account, elsewhere: Database, user: UUID
) -> None:
    socket = await listen(port, account)
    unpublished = Database(settings)
    await record_events(unpublished, user, 2)
    await record_events(elsewhere, user, 1)
    assert await sequences(socket, 3) == [1, 2, 3]
    await record_events(unpublished, user, 1)
    assert await sequences(socket, 1) == [4], "the poll finds what nothing later shows to be missing"
    await unpublished.close()
    await socket.close()


async def test_what_is_repeated_or_foreign_on_the_channel_is_left_out(
    port: int, account: Account, elsewhere: Database, user: UUID, redis: Redis
) -> None:
    socket = await listen(port, account)
    await record_events(elsewhere, user, 1)
    assert await sequences(socket, 1) == [1]
    again = Event(user_id=user, sequence=1, type="order", data={})
    for message in ("not ours", "{}", again.model_dump_json(), again.model_dump_json()):
        await redis.publish(CHANNEL, message)
    await record_events(elsewhere, user, 1)
    assert await sequences(socket, 1) == [2]
    await socket.close()


async def test_nobody_gets_the_events_of_another(
    settings: Settings, port: int, account: Account, elsewhere: Database, user: UUID
) -> None:
    other = await make_account(settings, "other@mail.test")
    mine, theirs = await listen(port, account, 0), await listen(port, other, 0)
    await record_events(elsewhere, user, 3, whose="mine")
    await record_events(elsewhere, await user_id_of(elsewhere, other), 1, whose="theirs")
    assert [event["data"]["whose"] for event in await events(mine, 3)] == ["mine"] * 3
    (only,) = await events(theirs, 1)
    assert (only["sequence"], only["data"]["whose"]) == (1, "theirs")
    assert [item["sequence"] for item in (await page(port, other, 0))["items"]] == [1]
    await mine.close()
    await theirs.close()


async def test_a_rolled_back_event_leaves_no_gap(
    port: int, account: Account, elsewhere: Database, user: UUID
) -> None:
    socket = await listen(port, account)

    async def undone() -> None:
        async with elsewhere.transaction() as session:
            await record(session, user, EventType.ORDER, {})
            raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        await undone()
    await record_events(elsewhere, user, 1)
    assert await sequences(socket, 1) == [1]
    await socket.close()


async def test_a_ticket_opens_one_connection(port: int, account: Account) -> None:
    offered = await protocols(port, account)
    async with connect(url(port), subprotocols=offered):
        answer = await refusal(port, offered)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"]


async def test_one_ticket_used_by_many_at_once_opens_one_connection(port: int, account: Account) -> None:
    offered = await protocols(port, account)
    attempts = [connect(url(port), subprotocols=offered) for _ in range(10)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    opened = [result for result in results if not isinstance(result, BaseException)]
    assert len(opened) == 1
    await opened[0].close()


@pytest.mark.parametrize(
    "offered",
    [
        ["tradingbot.v1"],
        ["tradingbot.v1", "ticket."],
        ["tradingbot.v1", "ticket.tbt_x"],
        ["tradingbot.v1", f"ticket.{new_token(TokenKind.TICKET)}"],
        ["tradingbot.v1", f"ticket.{new_token(TokenKind.API_KEY)}"],
    ],
)
async def test_handshakes_without_a_ticket_are_refused(port: int, offered: list[str]) -> None:
    assert_problem(await refusal(port, [Subprotocol(name) for name in offered]), 401)


async def test_a_ticket_wants_the_protocol_and_nothing_else_opens(port: int, account: Account) -> None:
    offered = await protocols(port, account)
    assert_problem(await refusal(port, offered[1:]), 401)
    other = await protocols(port, account)
    assert_problem(await refusal(port, [offered[0], offered[1], other[1]]), 401)
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(port), additional_headers=account.headers)
    assert refused.value.response.status_code == 401


async def test_an_expired_ticket_is_refused(
    account: Account, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setenv("WEBSOCKET_TICKET_SECONDS", "1")
    async with live_server(Settings()) as port:
        offered = await protocols(port, account)
        await asyncio.sleep(1.1)
        assert_problem(await refusal(port, offered), 401)


async def test_a_ticket_is_worth_nothing_after_its_users_end(
    port: int, account: Account, database_url: str
) -> None:
    offered = await protocols(port, account)
    await asyncio.to_thread(execute, database_url, "UPDATE users SET is_active = false")
    assert_problem(await refusal(port, offered), 401)


async def test_redis_keeps_a_hash_of_the_ticket_for_a_short_time(
    port: int, account: Account, redis: Redis
) -> None:
    _, ticket = await protocols(port, account)
    keys = [key async for key in redis.scan_iter("tradingbot:ticket:*")]
    assert keys
    for key in keys:
        assert ticket.removeprefix("ticket.") not in f"{key}{await redis.get(key)}"
        assert 0 < await redis.ttl(key) <= 30


async def test_tickets_are_for_readers(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert_problem(await client.post("/api/v1/ws/tickets"), 401)
        assert_problem(await client.get("/api/v1/events"), 401)


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "", "9223372036854775808", "²"])
async def test_a_number_that_is_none_is_refused(port: int, account: Account, after: str) -> None:
    assert_problem(await refusal(port, await protocols(port, account), f"?after={after}"), 422)


async def test_a_client_that_was_away_too_long_is_told_to_load_anew(
    port: int, account: Account, elsewhere: Database, user: UUID, owner_url: str
) -> None:
    await record_events(elsewhere, user, 5)
    old = "UPDATE events SET created_at = now() - interval '31 days' WHERE sequence <= 3"
    await asyncio.to_thread(execute, owner_url, old)
    assert await forget_old(elsewhere, 30) == 3
    socket = await listen(port, account, 2)
    reset = await receive(socket)
    assert (reset["type"], reset["sequence"]) == ("reset", 5)
    await record_events(elsewhere, user, 1)
    assert await sequences(socket, 1) == [6]
    just_enough = await listen(port, account, 3)
    assert await sequences(just_enough, 3) == [4, 5, 6]
    ahead = await listen(port, account, 99)
    reset = await receive(ahead)
    assert (reset["type"], reset["sequence"]) == ("reset", 6)
    for opened in (socket, just_enough, ahead):
        await opened.close()


async def test_pages_of_events_over_plain_http(
    port: int, account: Account, elsewhere: Database, user: UUID, database_url: str
) -> None:
    assert await page(port, account) == {"items": [], "next_after": 0, "has_more": False}
    await record_events(elsewhere, user, 5)
    assert (await page(port, account))["next_after"] == 5
    found, after, more = [], 0, True
    while more:
        answer = await page(port, account, after, 2)
        found += [item["sequence"] for item in answer["items"]]
        after, more = answer["next_after"], answer["has_more"]
    assert found == [1, 2, 3, 4, 5]
    assert await page(port, account, 5) == {"items": [], "next_after": 5, "has_more": False}
    await asyncio.to_thread(execute, database_url, "DELETE FROM events WHERE sequence < 3")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=account.headers) as client:
        for after in (0, 1, 6):
            gone = await client.get("/api/v1/events", params={"after": after})
            assert_problem(gone, 410)
            assert gone.json()["next_after"] == 5
        for wrong in ("-1", "x", str(2**63)):
            assert_problem(await client.get("/api/v1/events", params={"after": wrong}), 422)


async def test_a_user_has_so_many_connections_and_no_more(
    settings: Settings, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await make_account(settings, "other@mail.test")
    monkeypatch.setenv("WEBSOCKET_MAX_PER_USER", "2")
    async with live_server(Settings()) as port:
        first, second = await listen(port, account), await listen(port, account)
        answer = await refusal(port, await protocols(port, account))
        assert_problem(answer, 429)
        assert int(answer.headers["retry-after"]) > 0
        theirs = await listen(port, other)
        await first.close()
        async with asyncio.timeout(60):
            while True:
                try:
                    third = await listen(port, account)
                except InvalidStatus:
                    await asyncio.sleep(0.1)
                else:
                    break
        closing = [asyncio.create_task(close_code(socket)) for socket in (second, third, theirs)]
    assert await asyncio.gather(*closing) == [1012, 1012, 1012]
