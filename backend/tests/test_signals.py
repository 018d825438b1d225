"""Reading signals back."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Account, execute, make_account
from tests.test_webhooks import assert_problem
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, new_token


async def post(client: httpx.AsyncClient, account: Account, number: int) -> str:
    alert = {"symbol": f"S{number}", "action": "buy", "id": number}
    answer = await client.post(account.webhook, json=alert)
    assert answer.status_code == 202
    return str(answer.json()["id"])


async def get(client: httpx.AsyncClient, account: Account, **parameters: str) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/signals", params=parameters, headers=account.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


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


async def test_filters(client: httpx.AsyncClient, account: Account, database_url: str) -> None:
    ids = [await post(client, account, number) for number in range(4)]
    await asyncio.to_thread(
        execute,
        database_url,
        "UPDATE signals SET status = 'refused' WHERE symbol = 'S1'",
        "UPDATE signals SET"
        " received_at = make_timestamptz(2026, 1, 1 + substr(symbol, 2)::int, 12, 0, 0, 'UTC')",
    )
    everything = await get(client, account)
    assert [item["id"] for item in everything] == ids[::-1]
    strategy = everything[0]["strategy_id"]
    for parameters, expected in (
        ({"symbol": "S2"}, [2]),
        ({"status": "refused"}, [1]),
        ({"status": "queued"}, [3, 2, 0]),
        ({"since": "2026-01-02T12:00:00Z"}, [3, 2, 1]),
        ({"until": "2026-01-02T12:00:00Z"}, [0]),
        ({"since": "2026-01-02T13:00:00+01:00", "until": "2026-01-04T12:00:00Z"}, [2, 1]),
        ({"strategy_id": strategy}, [3, 2, 1, 0]),
        ({"strategy_id": str(uuid4())}, []),
        ({"strategy_id": strategy, "status": "queued", "symbol": "S1"}, []),
    ):
        found = [item["id"] for item in await get(client, account, **parameters)]
        assert found == [ids[number] for number in expected], parameters


async def test_detail_of_a_queued_signal(client: httpx.AsyncClient, account: Account) -> None:
    signal_id = await post(client, account, 1)
    detail = (await client.get(f"/api/v1/signals/{signal_id}", headers=account.headers)).json()
    (listed,) = await get(client, account)
    assert detail == listed | {"order": None, "refusal": None, "prediction": None}
    assert (detail["status"], detail["status_reason"], detail["processed_at"]) == ("queued", None, None)


async def test_detail_tells_what_came_of_it(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    ordered, refused = await post(client, account, 1), await post(client, account, 2)
    await asyncio.to_thread(
        execute,
        database_url,
        "INSERT INTO exchange_accounts (user_id, name, exchange, mode)"
        " SELECT id, 'outcome', 'paper', 'paper' FROM users",
        "INSERT INTO orders (signal_id, exchange_account_id, client_order_id, symbol, side, quantity, state,"
        " user_id, strategy_id) SELECT id, (SELECT id FROM exchange_accounts WHERE name = 'outcome'), 'tbx',"
        " symbol, 'buy', 0.5, 'submitted', user_id, strategy_id FROM signals WHERE symbol = 'S1'",
        "INSERT INTO predictions (signal_id, status, model_name, outcome, probabilities, user_id)"
        " SELECT id, 'ok', 'trend', 'buy', '{\"buy\": \"0.9\"}', user_id FROM signals WHERE symbol = 'S1'",
        "INSERT INTO refusals (signal_id, rule, reason, user_id, strategy_id)"
        " SELECT id, 'halted', 'by hand', user_id, strategy_id FROM signals WHERE symbol = 'S2'",
        "UPDATE signals SET status = 'refused', status_reason = 'by hand', processed_at = now()"
        " WHERE symbol = 'S2'",
    )
    first = (await client.get(f"/api/v1/signals/{ordered}", headers=account.headers)).json()
    assert (first["order"]["client_order_id"], first["order"]["quantity"]) == ("tbx", "0.5")
    assert first["order"]["state"] == "submitted"
    assert first["prediction"]["outcome"] == "buy"
    assert first["refusal"] is None
    second = (await client.get(f"/api/v1/signals/{refused}", headers=account.headers)).json()
    assert second["refusal"] == {"rule": "halted", "reason": "by hand"}
    assert (second["status"], second["status_reason"]) == ("refused", "by hand")
    assert second["processed_at"]
    assert second["order"] is None


async def test_a_user_sees_only_their_own(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    other = await make_account(settings, "other@mail.test")
    signal_id = await post(client, other, 1)
    (theirs,) = await get(client, other)
    assert await get(client, account) == []
    assert await get(client, account, strategy_id=theirs["strategy_id"]) == []
    path = f"/api/v1/signals/{signal_id}"
    assert (await client.get(path, headers=other.headers)).status_code == 200
    assert_problem(await client.get(path, headers=account.headers), 404)
    assert_problem(await client.get(f"/api/v1/signals/{uuid4()}", headers=account.headers), 404)


@pytest.mark.parametrize(
    "key",
    [b"", b"nonsense", "ä".encode(), pytest.param(new_token(TokenKind.API_KEY).encode(), id="unknown")],
)
async def test_invalid_keys(client: httpx.AsyncClient, key: bytes) -> None:
    for path in ("/api/v1/signals", f"/api/v1/signals/{uuid4()}"):
        answer = await client.get(path, headers=[(b"X-API-Key", key)])
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
        {"strategy_id": "x"},
        {"symbol": "A\x00"},
        {"status": "done"},
        {"since": "yesterday"},
        {"since": "2026-01-05T12:00:00"},
        {"until": "0001-01-01T00:00:00+14:00"},
    ],
)
async def test_invalid_parameters(
    client: httpx.AsyncClient, account: Account, parameters: dict[str, str]
) -> None:
    assert_problem(await client.get("/api/v1/signals", params=parameters, headers=account.headers), 422)
    assert_problem(await client.get("/api/v1/signals/x", headers=account.headers), 422)
