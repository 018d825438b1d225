"""The intake of alerts: every answer it gives."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import WEBHOOK_SECRET, Account, client_of, execute
from tradingbot.app import create_app
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, new_token

ALERT = {"symbol": "BTCUSDT", "action": "buy", "price": 64250.1, "quantity": "0.5", "order_id": "Long"}
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
ORDER = ALERT | {"timenow": NOW.isoformat(), "market_position": "long", "position_size": "0.5"}
PROBLEM = "application/problem+json"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts here are as old as the run of all tests; how old they may be is tested elsewhere."""
    monkeypatch.setenv("WEBHOOK_MAX_AGE", "86400")


async def signals_of(client: httpx.AsyncClient, account: Account) -> list[dict[str, Any]]:
    answer = await client.get("/api/v1/signals", headers=account.headers)
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert isinstance(items, list)
    return items


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/plain; charset=utf-8", ""])
async def test_alert_is_stored_whatever_its_content_type(
    client: httpx.AsyncClient, account: Account, content_type: str
) -> None:
    answer = await client.post(
        account.webhook, content=json.dumps(ALERT), headers={"content-type": content_type}
    )
    assert answer.status_code == 202
    assert answer.json()["status"] == "accepted"
    (stored,) = await signals_of(client, account)
    assert stored["id"] == answer.json()["id"]
    assert (stored["symbol"], stored["action"], stored["price"], stored["quantity"]) == (
        "BTCUSDT",
        "buy",
        "64250.1",
        "0.5",
    )


async def test_duplicate_answers_200_and_is_stored_once(client: httpx.AsyncClient, account: Account) -> None:
    first = await client.post(account.webhook, json=ALERT)
    second = await client.post(account.webhook, json=ALERT)
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == {"id": first.json()["id"], "status": "duplicate"}
    assert len(await signals_of(client, account)) == 1


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("alert", [ALERT, ORDER, {"symbol": "ETHUSDT", "action": "sell"}, ALERT | {"id": 7}])
async def test_hundred_at_once_are_one(
    client: httpx.AsyncClient, account: Account, alert: dict[str, Any]
) -> None:
    async def post() -> int:
        for _ in range(20):
            answer = await client.post(account.webhook, json=alert)
            if answer.status_code != 503:
                return answer.status_code
            await asyncio.sleep(0.2)
        return 503

    statuses = Counter(await asyncio.gather(*(post() for _ in range(100))))
    assert statuses == {202: 1, 200: 99}
    assert len(await signals_of(client, account)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"order_id": "Short"},
        {"timenow": (NOW + timedelta(seconds=1)).isoformat()},
        {"symbol": "ETHUSDT"},
        {"action": "sell"},
        {"quantity": "0.25"},
        {"market_position": "flat"},
        {"position_size": "1"},
    ],
    ids=lambda other: "-".join(other),
)
async def test_order_that_differs_in_one_field_is_another_alert(
    client: httpx.AsyncClient, account: Account, other: dict[str, str]
) -> None:
    first, second = ORDER, ORDER | other
    for alert, status in ((first, 202), (second, 202), (first, 200), (second, 200)):
        assert (await client.post(account.webhook, json=alert)).status_code == status
    assert len(await signals_of(client, account)) == 2


async def test_order_without_its_time_is_another_alert_once_its_content_differs(
    client: httpx.AsyncClient, account: Account
) -> None:
    for price, status in ((64250.1, 202), (64300, 202), (64300, 200)):
        assert (await client.post(account.webhook, json=ALERT | {"price": price})).status_code == status


async def test_same_id_is_the_same_alert_whatever_else_it_says(
    client: httpx.AsyncClient, account: Account
) -> None:
    assert (await client.post(account.webhook, json=ALERT | {"id": "a-1"})).status_code == 202
    assert (await client.post(account.webhook, json=ALERT | {"id": "a-1", "price": 1})).status_code == 200


@pytest.mark.parametrize(
    ("alert", "later"),
    [({"symbol": "ETHUSDT", "action": "sell"}, 202), (ALERT, 202), (ORDER, 200), (ALERT | {"id": 7}, 200)],
    ids=["content", "order", "order-and-time", "id"],
)
async def test_window_is_for_alerts_that_only_their_content_tells_apart(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    account: Account,
    database_url: str,
    alert: dict[str, Any],
    later: int,
) -> None:
    monkeypatch.setenv("WEBHOOK_DEDUP_WINDOW", "600")
    async with _client() as client:
        assert (await client.post(account.webhook, json=alert)).status_code == 202
        assert (await client.post(account.webhook, json=alert)).status_code == 200
        earlier = "UPDATE signals SET received_at = received_at - interval '601 seconds'"
        await asyncio.to_thread(execute, database_url, earlier)
        assert (await client.post(account.webhook, json=alert)).status_code == later


@asynccontextmanager
async def _client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings())
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


@pytest.mark.parametrize(
    "token",
    ["unknown", "tbw_short", "%00", "é", pytest.param(new_token(TokenKind.API_KEY), id="API key")],
)
async def test_unknown_token(client: httpx.AsyncClient, token: str) -> None:
    assert_problem(await client.post(f"/api/v1/webhooks/tradingview/{token}", json=ALERT), 404)


async def test_well_formed_token_of_nobody(client: httpx.AsyncClient, database_url: str) -> None:
    token = new_token(TokenKind.WEBHOOK)
    body = assert_problem(await client.post(f"/api/v1/webhooks/tradingview/{token}", json=ALERT), 404)
    assert token not in json.dumps(body)


async def test_body_of_64_kib_is_read_and_one_more_byte_is_not(
    client: httpx.AsyncClient, account: Account
) -> None:
    start = json.dumps(ALERT)
    exact = start + " " * (64 * 1024 - len(start))
    assert (await client.post(account.webhook, content=exact)).status_code == 202
    assert_problem(await client.post(account.webhook, content=exact + " "), 413)


async def test_large_body_without_a_length(client: httpx.AsyncClient, account: Account) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b" " * 1024

    assert_problem(await client.post(account.webhook, content=chunks()), 413)


@pytest.mark.parametrize("secret", [WEBHOOK_SECRET, None], ids=["right", "none"])
async def test_right_secret_is_accepted_and_not_stored(
    client: httpx.AsyncClient, account: Account, secret: str | None, database_url: str
) -> None:
    assert (await client.post(account.webhook, json=ALERT | {"secret": secret})).status_code == 202
    connection = await asyncpg.connect(database_url)
    row = await connection.fetchval("SELECT row_to_json(signals)::text FROM signals")
    await connection.close()
    assert "secret" not in row
    assert WEBHOOK_SECRET not in row


async def test_wrong_secret(client: httpx.AsyncClient, account: Account) -> None:
    body = assert_problem(await client.post(account.webhook, json=ALERT | {"secret": "gu€ss-wrong"}), 403)
    assert "ss-wrong" not in json.dumps(body)
    assert await signals_of(client, account) == []


MALFORMED = {
    "empty": b"",
    "not json": b"buy now",
    "truncated": b'{"symbol": "BTC',
    "list": b"[1]",
    "null": b"null",
    "nan": b'{"symbol":"A","action":"buy","price":NaN}',
    "infinity": b'{"symbol":"A","action":"buy","price":-Infinity}',
    "nan as text": b'{"symbol":"A","action":"buy","price":"NaN"}',
    "infinity as text": b'{"symbol":"A","action":"buy","price":"Infinity"}',
    "huge exponent": b'{"symbol":"A","action":"buy","price":1e400000}',
    "huge exponent as text": b'{"symbol":"A","action":"buy","price":"1e400000"}',
    "huge integer": b'{"symbol":"A","action":"buy","extra":' + b"9" * 5000 + b"}",
    "wide integer": b'{"symbol":"A","action":"buy","price":' + b"9" * 30 + b"}",
    "rounded too large": b'{"symbol":"A","action":"buy","price":"' + b"9" * 20 + b"." + b"9" * 19 + b'"}',
    "nul": b'{"symbol":"A\\u0000","action":"buy"}',
    "nul in a key": b'{"symbol":"A","action":"buy","x\\u0000":1}',
    "raw nul": b'{"symbol":"A\x00","action":"buy"}',
    "invalid utf-8": b'{"symbol":"\xff\xfe","action":"buy"}',
    "half surrogate": b'{"symbol":"A","action":"buy","comment":"\\ud800"}',
    "deep": b'{"symbol":"A","action":"buy","x":' + b"[" * 20000 + b"]" * 20000 + b"}",
    "deeper than allowed": b'{"symbol":"A","action":"buy","x":' + b"[" * 40 + b"]" * 40 + b"}",
    "no action": b'{"symbol":"A"}',
    "no symbol": b'{"action":"buy"}',
    "empty symbol": b'{"symbol":"  ","action":"buy"}',
    "unknown action": b'{"symbol":"A","action":"hold"}',
    "boolean price": b'{"symbol":"A","action":"buy","price":true}',
    "object price": b'{"symbol":"A","action":"buy","price":{}}',
    "bad time": b'{"symbol":"A","action":"buy","timenow":"yesterday"}',
    "time out of range": b'{"symbol":"A","action":"buy","timenow":"9999-12-31T23:59:59-23:00"}',
    "huge time": b'{"symbol":"A","action":"buy","timenow":99999999999999999999999999}',
    "secret is a number": b'{"symbol":"A","action":"buy","secret":123}',
    "long number": b'{"symbol":"A","action":"buy","quantity":"' + b"1" * 60_000 + b'x"}',
    "underscore": b'{"symbol":"A","action":"buy","quantity":"0.00_1"}',
    "underscores": b'{"symbol":"A","action":"buy","price":"50_004"}',
    "digits of another script": '{"symbol":"A","action":"buy","quantity":"\u0660.\u0665"}'.encode(),
    "digits of full width": '{"symbol":"A","action":"buy","quantity":"\uff10\uff0e\uff15"}'.encode(),
    "empty quantity": b'{"symbol":"A","action":"buy","quantity":""}',
    "key twice": b'{"symbol":"A","action":"buy","action":"sell"}',
    "key twice within": b'{"symbol":"A","action":"buy","x":{"y":1,"y":1}}',
    "reduce_only is a word": b'{"symbol":"A","action":"buy","reduce_only":"maybe"}',
    "no symbol but null": b'{"ticker":null,"symbol":null,"action":"buy"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_body(client: httpx.AsyncClient, account: Account, body: bytes) -> None:
    assert_problem(await client.post(account.webhook, content=body), 422)
    assert await signals_of(client, account) == []


async def test_refusal_names_the_field_and_never_the_value(
    client: httpx.AsyncClient, account: Account
) -> None:
    answer = await client.post(
        account.webhook, json={"symbol": "A", "action": "hush-hush", "secret": "s" * 600}
    )
    body = assert_problem(answer, 422)
    assert {error["field"] for error in body["errors"]} == {"action", "secret"}
    assert "hush-hush" not in answer.text
    assert "ssss" not in answer.text


async def test_target_position(client: httpx.AsyncClient, account: Account) -> None:
    milliseconds = int(NOW.timestamp() * 1000)
    alert = {"ticker": "EURUSD", "market_position": "Short", "position_size": 1e3, "timenow": milliseconds}
    assert (await client.post(account.webhook, json=alert)).status_code == 202
    (stored,) = await signals_of(client, account)
    assert (stored["market_position"], stored["position_size"]) == ("short", "1000")
    assert datetime.fromisoformat(stored["sent_at"]) == NOW
    assert stored["action"] is None


async def test_amounts_are_exact_and_rounded_to_18_places(
    client: httpx.AsyncClient, account: Account
) -> None:
    raw = '{"symbol":"A","action":"buy","price":99999999999999999999.999999999999999999,"quantity":1e-18}'
    assert (await client.post(account.webhook, content=raw)).status_code == 202
    (stored,) = await signals_of(client, account)
    assert stored["price"] == "99999999999999999999.999999999999999999"
    assert stored["quantity"] == "0.000000000000000001"


async def test_text_with_quotes_and_emoji_survives(client: httpx.AsyncClient, account: Account) -> None:
    comment = "'; DROP TABLE signals; -- \\ \" 🚀 ü"
    assert (await client.post(account.webhook, json=ALERT | {"comment": comment})).status_code == 202
    (stored,) = await signals_of(client, account)
    assert stored["comment"] == comment
