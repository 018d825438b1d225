"""Reading signals back."""

import asyncio

import httpx
import pytest

from tests.conftest import Account, execute, make_account
from tests.test_webhooks import assert_problem
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, new_token


async def post(client: httpx.AsyncClient, account: Account, number: int) -> None:
    alert = {"symbol": f"S{number}", "action": "buy", "id": number}
    assert (await client.post(account.webhook, json=alert)).status_code == 202


async def test_pages_hold_every_signal_once_and_the_newest_first(
    client: httpx.AsyncClient, account: Account
) -> None:
    for number in range(7):
        await post(client, account, number)
    symbols: list[str] = []
    parameters = {"limit": "3"}
    while True:
        page = (await client.get("/api/v1/signals", params=parameters, headers=account.headers)).json()
        symbols += [item["symbol"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert symbols == [f"S{number}" for number in reversed(range(7))]


async def test_a_user_sees_only_their_own(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    other = await make_account(settings, "other@mail.test")
    await post(client, other, 1)
    assert (await client.get("/api/v1/signals", headers=account.headers)).json()["items"] == []
    assert len((await client.get("/api/v1/signals", headers=other.headers)).json()["items"]) == 1


@pytest.mark.parametrize("key", [b"", b"nonsense", "ä".encode(), new_token(TokenKind.API_KEY).encode()])
async def test_invalid_keys(client: httpx.AsyncClient, key: bytes) -> None:
    answer = await client.get("/api/v1/signals", headers=[(b"X-API-Key", key)])
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"]


INVALIDATIONS = [
    "UPDATE api_keys SET revoked_at = now()",
    "UPDATE api_keys SET expires_at = now() - interval '1 second'",
    "UPDATE users SET is_active = false",
]


@pytest.mark.parametrize("statement", INVALIDATIONS)
async def test_revoked_and_expired_keys(
    client: httpx.AsyncClient, account: Account, database_url: str, statement: str
) -> None:
    assert (await client.get("/api/v1/signals", headers=account.headers)).status_code == 200
    await asyncio.to_thread(execute, database_url, statement)
    assert_problem(await client.get("/api/v1/signals", headers=account.headers), 401)


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "x"},
        {"cursor": "x"},
        {"cursor": "_" * 32},
        {"cursor": "é"},
    ],
)
async def test_invalid_parameters(
    client: httpx.AsyncClient, account: Account, parameters: dict[str, str]
) -> None:
    assert_problem(await client.get("/api/v1/signals", params=parameters, headers=account.headers), 422)
