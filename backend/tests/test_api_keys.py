"""API keys: making, using, listing and revoking them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tests.access import SignedIn, make_user, sign_in
from tests.conftest import Account, execute
from tests.test_webhooks import assert_problem
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, is_well_formed

KEYS = "/api/v1/api-keys"
ME = "/api/v1/auth/me"


@pytest.fixture
async def session(client: httpx.AsyncClient, settings: Settings) -> SignedIn:
    await make_user(settings)
    return await sign_in(client)


async def make(client: httpx.AsyncClient, session: SignedIn, **body: Any) -> dict[str, Any]:
    answer = await client.post(KEYS, json={"name": "k"} | body, headers=session.headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


async def status(client: httpx.AsyncClient, key: str) -> int:
    return (await client.get(ME, headers={"X-API-Key": key})).status_code


async def test_key_is_made_used_listed_and_revoked(client: httpx.AsyncClient, session: SignedIn) -> None:
    made = await make(client, session, name=" laptop ")
    key = made.pop("key")
    assert is_well_formed(key, TokenKind.API_KEY)
    assert key.startswith(made["prefix"])
    assert made["name"] == "laptop"
    assert made["scopes"] == ["read"]
    assert made["expires_at"] is None
    me = (await client.get(ME, headers={"X-API-Key": key})).json()
    assert me["scopes"] == ["read"]
    (item,) = (await client.get(KEYS, headers=session.headers)).json()["items"]
    assert item.pop("last_used_at") is not None
    assert item == {name: value for name, value in made.items() if name != "last_used_at"}
    path = f"{KEYS}/{made['id']}"
    assert (await client.delete(path, headers=session.headers)).status_code == 204
    assert await status(client, key) == 401
    assert_problem(await client.delete(path, headers=session.headers), 404)
    assert (await client.get(KEYS, headers=session.headers)).json()["items"] == []


async def test_only_a_hash_is_stored(client: httpx.AsyncClient, app: FastAPI, session: SignedIn) -> None:
    key = (await make(client, session))["key"]
    async with app.state.context.database.single() as database:
        shown = str((await database.execute(text("SELECT k::text FROM api_keys k"))).all())
    assert key[:12] in shown
    assert key[12:] not in shown


async def test_keys_expire(client: httpx.AsyncClient, session: SignedIn, database_url: str) -> None:
    made = await make(client, session, expires_in_days=90)
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert lasts == timedelta(days=90)
    assert await status(client, made["key"]) == 200
    await asyncio.to_thread(execute, database_url, "UPDATE api_keys SET expires_at = now()")
    assert await status(client, made["key"]) == 401


async def test_scopes(client: httpx.AsyncClient, session: SignedIn) -> None:
    read, trade = [await make(client, session, scopes=[scope]) for scope in ("read", "trade")]
    refused = await client.get("/api/v1/signals", headers={"X-API-Key": trade["key"]})
    assert assert_problem(refused, 403)["detail"] == "The API key lacks the scope read."
    body = {"name": "s"}
    refused = await client.post("/api/v1/strategies", json=body, headers={"X-API-Key": read["key"]})
    assert assert_problem(refused, 403)["detail"] == "The API key lacks the scope trade."
    made = await client.post("/api/v1/strategies", json=body, headers={"X-API-Key": trade["key"]})
    assert made.status_code == 201
    refused = await client.get(KEYS, headers={"X-API-Key": read["key"]})
    assert "signed-in session" in assert_problem(refused, 403)["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": " "},
        {"name": "x" * 101},
        {"name": "a\x00b"},
        {"name": "k", "scopes": []},
        {"name": "k", "scopes": ["admin"]},
        {"name": "k", "scopes": ["read", "read"]},
        {"name": "k", "expires_in_days": "3_0"},
        {"name": "k", "scopes": ["read", "trade", "read"]},
        {"name": "k", "expires_in_days": 0},
        {"name": "k", "expires_in_days": 3651},
        {"name": "k", "user_id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d"},
    ],
)
async def test_bodies_that_are_not_valid(
    client: httpx.AsyncClient, session: SignedIn, body: dict[str, Any]
) -> None:
    assert_problem(await client.post(KEYS, json=body, headers=session.headers), 422)


async def test_pages(client: httpx.AsyncClient, session: SignedIn) -> None:
    made = [(await make(client, session, name=f"k{number}"))["id"] for number in range(5)]
    ids: list[str] = []
    parameters = {"limit": "2"}
    while True:
        page = (await client.get(KEYS, params=parameters, headers=session.headers)).json()
        ids += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert ids == made[::-1]


async def last_used(app: FastAPI) -> datetime | None:
    async with app.state.context.database.single() as session:
        used: datetime | None = await session.scalar(text("SELECT last_used_at FROM api_keys"))
    return used


async def test_use_is_noted_once_a_minute(
    client: httpx.AsyncClient, app: FastAPI, account: Account, database_url: str
) -> None:
    assert await last_used(app) is None
    await status(client, account.api_key)
    first = await last_used(app)
    assert first is not None
    await status(client, account.api_key)
    assert await last_used(app) == first
    earlier = "UPDATE api_keys SET last_used_at = last_used_at - interval '61 seconds'"
    await asyncio.to_thread(execute, database_url, earlier)
    await status(client, account.api_key)
    second = await last_used(app)
    assert second is not None
    assert second >= first


async def test_key_works_while_nothing_can_be_noted(
    client: httpx.AsyncClient, app: FastAPI, account: Account, owner_url: str
) -> None:
    name = owner_url.rpartition("/")[2]
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only"
    await asyncio.to_thread(execute, owner_url, f"{read_only} = on")
    try:
        await app.state.context.database.engine.dispose()
        assert await status(client, account.api_key) == 200
        with pytest.raises(UnavailableError):
            async with app.state.context.database.transaction() as session:
                await session.execute(text("UPDATE api_keys SET last_used_at = now()"))
    finally:
        writable = "SET default_transaction_read_only = off"
        await asyncio.to_thread(execute, owner_url, writable, f"ALTER DATABASE {name} RESET ALL")
        await app.state.context.database.engine.dispose()
    assert await last_used(app) is None


async def test_use_is_noted_without_waiting_for_a_lock(
    client: httpx.AsyncClient, app: FastAPI, account: Account
) -> None:
    async with app.state.context.database.transaction() as session, asyncio.timeout(5):
        await session.execute(text("SELECT 1 FROM api_keys FOR UPDATE"))
        assert await status(client, account.api_key) == 200
