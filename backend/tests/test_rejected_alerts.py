"""Alerts that were answered with an error are shown to the owner of their address, without what they said."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from tests.conftest import Account, execute, make_account
from tests.desk import until
from tests.receivers import eventually
from tradingbot.core.database import Database
from tradingbot.core.errors import UnprocessableError
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, new_token
from tradingbot.webhooks.models import RejectedAlert
from tradingbot.webhooks.rejections import KEPT, Rejections

URL = "/api/v1/rejected-alerts"
BUY = {"symbol": "BTCUSDT", "action": "buy"}
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


async def listed(client: httpx.AsyncClient, account: Account, **parameters: Any) -> list[dict[str, Any]]:
    answer = await client.get(URL, params=parameters, headers=account.headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def until_listed(client: httpx.AsyncClient, account: Account, alerts: int) -> list[dict[str, Any]]:
    async def are_listed() -> bool:
        return bool(sum(item["times"] for item in await listed(client, account)) >= alerts)

    await until(are_listed)
    return await listed(client, account)


async def test_each_reason_is_shown_with_how_often_and_when_last(
    client: httpx.AsyncClient, account: Account
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    bodies: list[Any] = [
        BUY | {"secret": "hush-hush"},
        BUY | {"timenow": long_ago.isoformat()},
        BUY | {"timenow": (long_ago + timedelta(minutes=7)).isoformat()},
        BUY | {"stopLoss": "hush-hush"},
        {"symbol": "BTCUSDT", "action": "hush-hush"},
        BUY | {"timenow": (long_ago + timedelta(days=2)).isoformat()},
    ]
    for body in bodies:
        answer = await client.post(account.webhook, json=body)
        assert answer.status_code in (403, 422), answer.text
    assert (await client.post(account.webhook, content=b'{"hush-hush')).status_code == 422
    assert (await client.post(account.webhook, content=b" " * 70_000)).status_code == 413
    found = await until_listed(client, account, 8)
    assert [(item["status"], item["times"]) for item in found] == [
        (413, 1),
        (422, 1),
        (422, 1),
        (422, 1),
        (422, 1),
        (422, 2),
        (403, 1),
    ]
    reasons = [item["reason"] for item in found]
    for reason, words in zip(
        reasons,
        (
            "larger than 65536 bytes",
            "not JSON",
            "in the future",
            "action: ",
            "stopLoss: not supported",
            " s old by its timenow",
            "secret in the alert is wrong",
        ),
        strict=True,
    ):
        assert words in reason, reasons
    assert "hush" not in str(found)
    assert found[5]["created_at"] < found[5]["last_at"]


async def test_what_is_taken_and_what_may_be_sent_again_is_not_among_them(
    client: httpx.AsyncClient, account: Account
) -> None:
    assert (await client.post(account.webhook, json=BUY)).status_code == 202
    assert (await client.post(account.webhook, json=BUY)).status_code == 200
    assert (await client.post(account.webhook, json={})).status_code == 422
    (only,) = await until_listed(client, account, 1)
    assert only["status"] == 422


async def test_an_alert_for_a_strategy_that_is_off_is_among_them(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    await asyncio.to_thread(execute, database_url, "UPDATE strategies SET is_active = false")
    assert (await client.post(account.webhook, json=BUY)).status_code == 404
    (only,) = await until_listed(client, account, 1)
    assert only["status"] == 404


async def test_everybody_sees_their_own(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    other = await make_account(settings, "other@mail.test")
    assert (await client.post(account.webhook, json={})).status_code == 422
    nobodys = f"/api/v1/webhooks/tradingview/{new_token(TokenKind.WEBHOOK)}"
    for path in (nobodys, nobodys[:-20]):
        assert (await client.post(path, json={})).status_code in (404, 422)
    (mine,) = await until_listed(client, account, 1)
    assert await listed(client, other) == []
    assert await listed(client, other, strategy_id=mine["strategy_id"]) == []
    assert await listed(client, account, strategy_id=mine["strategy_id"]) == [mine]


async def test_pages(client: httpx.AsyncClient, account: Account) -> None:
    body = BUY | {"stopLoss": 1}
    for field in ("sl", "tp", "leverage"):
        assert (await client.post(account.webhook, json=body | {field: 5})).status_code == 422
    found = await until_listed(client, account, 3)
    first = (await client.get(URL, params={"limit": 2}, headers=account.headers)).json()
    parameters = {"limit": "200", "cursor": first["next_cursor"]}
    rest = (await client.get(URL, params=parameters, headers=account.headers)).json()
    assert first["items"] + rest["items"] == found
    assert rest["next_cursor"] is None


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings)
    yield database
    await database.close()


def error(words: str) -> UnprocessableError:
    return UnprocessableError(words)


async def test_of_each_strategy_the_newest_are_kept(
    database: Database, account: Account, settings: Settings
) -> None:
    rejections = Rejections(database, settings)
    letters = [f"reason {chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(KEPT + 20)]
    for number, words in enumerate(letters):
        rejections.note(account.token, error(words), NOW + timedelta(seconds=number))
    rejections.note(account.token, error(letters[21]), NOW + timedelta(hours=1))
    rejections.start()

    async def newest() -> list[tuple[str, int]]:
        async with database.transaction() as session:
            statement = select(RejectedAlert).order_by(RejectedAlert.last_at.desc())
            return [(row.reason, row.times) for row in (await session.execute(statement)).scalars()]

    async def all_noted() -> bool:
        return (await newest())[:1] == [(letters[21], 2)]

    await until(all_noted)
    await rejections.close()
    kept = await newest()
    assert len(kept) == KEPT
    assert kept[1:] == [(words, 1) for words in reversed(letters[20:]) if words != letters[21]]


async def test_more_than_can_be_noted_are_left_out(
    database: Database, account: Account, settings: Settings
) -> None:
    rejections = Rejections(database, settings)
    for number in range(1000):
        rejections.note(account.token, error(f"The alert is {number} s old."), NOW)
    rejections.start()

    async def noted() -> list[int]:
        async with database.transaction() as session:
            return list((await session.execute(select(RejectedAlert.times))).scalars())

    async def queue_is_empty() -> bool:
        return await noted() == [200]

    await until(queue_is_empty)
    await rejections.close()
    assert await noted() == [200]


async def test_without_the_table_alerts_are_answered_and_it_is_said_once(
    client: httpx.AsyncClient,
    account: Account,
    owner_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As while the schema of the version before is there."""
    said = ""

    def is_said() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "rejected alerts are not noted" in said

    await asyncio.to_thread(execute, owner_url, "ALTER TABLE rejected_alerts RENAME TO away")
    try:
        for _ in range(3):
            assert (await client.post(account.webhook, json={})).status_code == 422
        await eventually(is_said)
        await asyncio.sleep(0.2)
    finally:
        await asyncio.to_thread(execute, owner_url, "ALTER TABLE away RENAME TO rejected_alerts")
    is_said()
    assert said.count("rejected alerts are not noted") == 1
    assert (await client.post(account.webhook, json={})).status_code == 422
    await until_listed(client, account, 1)
