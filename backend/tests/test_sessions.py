"""Refresh tokens, and ending sessions."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tests.access import SignedIn, make_user, refresh, sign_in, signed_in
from tests.conftest import execute
from tests.test_webhooks import assert_problem
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, is_well_formed, new_token

ME = "/api/v1/auth/me"
SESSIONS = "/api/v1/auth/sessions"


@pytest.fixture(autouse=True)
async def user(settings: Settings) -> None:
    await make_user(settings)


async def status(client: httpx.AsyncClient, session: SignedIn) -> int:
    return (await client.get(ME, headers=session.headers)).status_code


async def listed(client: httpx.AsyncClient, session: SignedIn) -> set[str]:
    items = (await client.get(SESSIONS, headers=session.headers)).json()["items"]
    return {item["id"] for item in items}


async def test_refresh_rotates(client: httpx.AsyncClient) -> None:
    first = await sign_in(client)
    answer = await refresh(client, first.refresh_token)
    assert answer.headers["cache-control"] == "no-store"
    second = signed_in(answer)
    assert second.session_id == first.session_id
    assert second.refresh_token != first.refresh_token
    third = signed_in(await refresh(client, second.refresh_token))
    for session in (first, second, third):
        assert await status(client, session) == 200


EARLIER = "UPDATE retired_refresh_tokens SET retired_at = retired_at - interval '6 seconds'"


async def test_used_token_shown_again_ends_the_session(
    client: httpx.AsyncClient, owner_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other, first = await sign_in(client), await sign_in(client)
    second = signed_in(await refresh(client, first.refresh_token))
    third = signed_in(await refresh(client, second.refresh_token))
    await asyncio.to_thread(execute, owner_url, EARLIER)
    answers = [await refresh(client, first.refresh_token), await refresh(client, third.refresh_token)]
    for answer in answers:
        assert_problem(answer, 401)
    assert await status(client, third) == 401
    assert await status(client, other) == 200
    log = capsys.readouterr().out
    assert first.session_id in log
    assert first.refresh_token not in log


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "tbr_x",
        pytest.param(new_token(TokenKind.REFRESH), id="unknown"),
        pytest.param(new_token(TokenKind.API_KEY), id="API key"),
        "ä" * 53,
    ],
)
async def test_tokens_that_are_none(client: httpx.AsyncClient, token: str) -> None:
    assert_problem(await refresh(client, token), 401)


async def test_only_a_hash_is_stored(client: httpx.AsyncClient, app: FastAPI) -> None:
    first = await sign_in(client)
    second = signed_in(await refresh(client, first.refresh_token))
    assert is_well_formed(second.refresh_token, TokenKind.REFRESH)
    async with app.state.context.database.single() as session:
        rows = await session.execute(
            text("SELECT s::text, r::text FROM sessions s, retired_refresh_tokens r")
        )
        shown = str(rows.all())
    assert first.session_id in shown
    assert first.refresh_token not in shown
    assert second.refresh_token not in shown


async def test_two_refreshes_at_the_same_moment(client: httpx.AsyncClient, app: FastAPI) -> None:
    session = await sign_in(client)
    database = app.state.context.database
    async with database.transaction() as blocker:
        await blocker.execute(text("SELECT 1 FROM sessions FOR UPDATE"))
        tasks = [asyncio.create_task(refresh(client, session.refresh_token)) for _ in range(2)]
        # Both have seen that the token is good, and wait for the row.
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        async with asyncio.timeout(30):
            while (await blocker.execute(waiting)).scalar_one() < 2:
                await asyncio.sleep(0.02)
                await blocker.execute(text("SELECT pg_stat_clear_snapshot()"))
    won, lost = sorted(await asyncio.gather(*tasks), key=lambda answer: answer.status_code)
    assert_problem(lost, 409)
    winner = signed_in(won)
    assert await status(client, winner) == 200
    signed_in(await refresh(client, winner.refresh_token))


@pytest.fixture
def long_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that a busy machine does not make a second one late."""
    monkeypatch.setattr("tradingbot.auth.service._SAME_MOMENT", 600.0)


@pytest.mark.usefixtures("long_moment")
async def test_many_refreshes_at_once_never_give_two_tokens(client: httpx.AsyncClient) -> None:
    session = await sign_in(client)
    answers = await asyncio.gather(*(refresh(client, session.refresh_token) for _ in range(8)))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [200] + [409] * 7
    winner = signed_in(answers[statuses.index(200)])
    assert await status(client, winner) == 200


@pytest.mark.usefixtures("long_moment")
async def test_who_comes_second_a_moment_later_does_not_end_the_session(client: httpx.AsyncClient) -> None:
    first = await sign_in(client)
    winner = signed_in(await refresh(client, first.refresh_token))
    assert_problem(await refresh(client, first.refresh_token), 409)
    signed_in(await refresh(client, winner.refresh_token))


async def test_a_used_token_of_a_session_that_is_over_is_refused(client: httpx.AsyncClient) -> None:
    first = await sign_in(client)
    second = signed_in(await refresh(client, first.refresh_token))
    assert (await client.post("/api/v1/auth/logout", headers=second.headers)).status_code == 204
    assert_problem(await refresh(client, first.refresh_token), 401)


async def test_logout(client: httpx.AsyncClient) -> None:
    here, there = await sign_in(client), await sign_in(client)
    answer = await client.post("/api/v1/auth/logout", headers=here.headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await status(client, here) == 401
    assert_problem(await refresh(client, here.refresh_token), 401)
    assert await status(client, there) == 200


async def test_sessions_are_listed_and_ended(client: httpx.AsyncClient) -> None:
    client.headers["User-Agent"] = "Mobile\x7f" + "x" * 300
    here, there, elsewhere = [await sign_in(client) for _ in range(3)]
    items: list[dict[str, object]] = []
    parameters = {"limit": "2"}
    while True:
        page = (await client.get(SESSIONS, params=parameters, headers=here.headers)).json()
        items += page["items"]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert [item["id"] for item in items] == [session.session_id for session in (elsewhere, there, here)]
    assert [item["current"] for item in items] == [False, False, True]
    assert items[0]["address"] == "127.0.0.1"
    assert items[0]["user_agent"] == "Mobile" + "x" * 194
    assert here.refresh_token not in str(items)

    path = f"{SESSIONS}/{there.session_id}"
    assert (await client.delete(path, headers=here.headers)).status_code == 204
    assert_problem(await client.delete(path, headers=here.headers), 404)
    assert await status(client, there) == 401
    assert await listed(client, here) == {here.session_id, elsewhere.session_id}

    assert (await client.delete(SESSIONS, headers=here.headers)).status_code == 204
    assert await status(client, elsewhere) == 401
    assert await listed(client, here) == {here.session_id}
