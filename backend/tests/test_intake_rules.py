"""What decides about an alert besides its form: the strategy's state and secret, and the alert's age."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY

from tests.conftest import WEBHOOK_SECRET, Account, client_of, execute, make_account
from tests.test_webhooks import ALERT, assert_problem
from tradingbot.app import create_app
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import hash_token
from tradingbot.outbox.repository import CHANNEL
from tradingbot.outbox.waker import Waker

SECRET = "only-this-strategy-knows-it"


def _refused() -> float:
    return REGISTRY.get_sample_value("tradingbot_webhook_alerts_total", {"outcome": "forbidden"}) or 0


def sent(seconds_ago: float, **fields: Any) -> dict[str, Any]:
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return ALERT | {"timenow": moment.isoformat()} | fields


async def run(url: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
        return rows
    finally:
        await connection.close()


async def test_the_strategys_own_secret(
    client: httpx.AsyncClient, account: Account, settings: Settings, database_url: str
) -> None:
    secret_hash = hash_token(SECRET, settings.secret_key.get_secret_value())
    await run(database_url, "UPDATE strategies SET secret_hash = $1", secret_hash)
    for number, (secret, status) in enumerate(
        [
            (SECRET, 202),
            (WEBHOOK_SECRET, 202),
            (None, 403),
            (SECRET + "x", 403),
            ("", 403),
            (secret_hash, 403),
        ]
    ):
        alert = ALERT | {"secret": secret, "id": number}
        assert (await client.post(account.webhook, json=alert)).status_code == status, secret
    unsigned = {name: value for name, value in ALERT.items() if name != "secret"}
    answer = await client.post(account.webhook, json=unsigned | {"id": "unsigned"})
    assert "has none" in assert_problem(answer, 403)["detail"]
    (row,) = await run(database_url, "SELECT string_agg(payload::text, '') AS all FROM signals")
    assert SECRET not in row["all"]
    assert "secret" not in row["all"]


async def test_refused_secrets_are_counted_and_logged_without_them(
    client: httpx.AsyncClient,
    account: Account,
    settings: Settings,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret_hash = hash_token(SECRET, settings.secret_key.get_secret_value())
    (strategy,) = await run(database_url, "UPDATE strategies SET secret_hash = $1 RETURNING id", secret_hash)
    before = _refused()
    for secret in (None, f"{SECRET}x"):
        await client.post(account.webhook, json=ALERT | {"secret": secret})
    assert _refused() == before + 2
    lines = [line for line in capsys.readouterr().out.splitlines() if "an alert was refused" in line]
    assert [str(strategy["id"]) in line for line in lines] == [True, True]
    assert ["has none" in line for line in lines] == [True, False]
    assert all(SECRET not in line and secret_hash not in line for line in lines)


async def test_everyones_secret_is_compared_in_constant_time(
    client: httpx.AsyncClient, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr("tradingbot.webhooks.service.hmac.compare_digest", compare_digest)
    answer = await client.post(account.webhook, json=ALERT | {"secret": SECRET})
    assert answer.status_code == 403
    assert (SECRET.encode(), WEBHOOK_SECRET.encode()) in compared


async def test_the_secret_of_another_strategy_is_wrong(
    client: httpx.AsyncClient, account: Account, settings: Settings, database_url: str
) -> None:
    other = await make_account(settings, "other@mail.test")
    key = settings.secret_key.get_secret_value()
    await run(
        database_url,
        "UPDATE strategies SET secret_hash = $1 WHERE webhook_token_hash = $2",
        hash_token(SECRET, key),
        hash_token(other.token, key),
    )
    assert (await client.post(other.webhook, json=ALERT | {"secret": SECRET})).status_code == 202
    answer = await client.post(account.webhook, json=ALERT | {"secret": SECRET})
    assert_problem(answer, 403)
    assert SECRET not in answer.text


async def test_a_wrong_secret_learns_nothing_of_what_is_stored(
    client: httpx.AsyncClient, account: Account
) -> None:
    assert (await client.post(account.webhook, json=ALERT | {"id": 1})).status_code == 202
    assert_problem(await client.post(account.webhook, json=ALERT | {"id": 1, "secret": "guess"}), 403)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE strategies SET is_active = false",
        "UPDATE users SET is_active = false",
        "UPDATE strategies SET webhook_token_hash = repeat('0', 64)",
        "DELETE FROM strategies",
    ],
)
async def test_what_changes_a_strategy_counts_from_the_next_alert_on(
    client: httpx.AsyncClient, account: Account, database_url: str, statement: str
) -> None:
    assert (await client.post(account.webhook, json=ALERT | {"id": 1})).status_code == 202
    await asyncio.to_thread(execute, database_url, statement)
    for number in (1, 2):
        assert_problem(await client.post(account.webhook, json=ALERT | {"id": number}), 404)


async def test_a_stale_alert_is_refused_and_told_its_age(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    assert (await client.post(account.webhook, json=sent(290))).status_code == 202
    detail = assert_problem(await client.post(account.webhook, json=sent(310)), 422)["detail"]
    assert detail in {
        f"The alert is {age} s old by its timenow, and may be 300 s old." for age in range(310, 330)
    }
    assert len(await run(database_url, "SELECT 1 FROM signals")) == 1
    assert len(await run(database_url, "SELECT 1 FROM outbox")) == 1


async def test_a_strategy_may_be_more_or_less_patient(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    await run(database_url, "UPDATE strategies SET max_alert_age = 20")
    assert_problem(await client.post(account.webhook, json=sent(30)), 422)
    await run(database_url, "UPDATE strategies SET max_alert_age = 3600")
    assert (await client.post(account.webhook, json=sent(3000))).status_code == 202


async def test_an_alert_that_is_stored_is_a_duplicate_however_late_it_comes_again(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    alert = sent(5)
    first = await client.post(account.webhook, json=alert)
    await run(database_url, "UPDATE strategies SET max_alert_age = 1")
    second = await client.post(account.webhook, json=alert)
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["id"] == first.json()["id"]


async def test_a_sender_whose_clock_is_ahead(client: httpx.AsyncClient, account: Account) -> None:
    assert (await client.post(account.webhook, json=sent(-50))).status_code == 202
    detail = assert_problem(await client.post(account.webhook, json=sent(-90)), 422)["detail"]
    assert "in the future" in detail
    assert "clock" in detail


async def test_an_alert_without_its_time_is_never_stale(client: httpx.AsyncClient, account: Account) -> None:
    assert (await client.post(account.webhook, json=ALERT)).status_code == 202


@asynccontextmanager
async def instances(count: int) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Applications that share nothing but their servers."""
    if count == 0:
        yield []
        return
    app = create_app(Settings())
    async with app.router.lifespan_context(app), client_of(app) as client, instances(count - 1) as others:
        yield [client, *others]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    "fields", [{"id": 7}, {"order_id": "L"}, {"timenow": None}], ids=["id", "order", "content"]
)
async def test_the_same_alert_a_hundred_times_at_once_at_three_instances(
    account: Account, database_url: str, fields: dict[str, Any]
) -> None:
    alert = sent(0, **fields)
    async with instances(3) as clients:
        answers = await asyncio.gather(
            *(clients[number % 3].post(account.webhook, json=alert) for number in range(100))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    rows = await run(database_url, "SELECT signals.id FROM signals JOIN outbox ON signal_id = signals.id")
    assert [str(row["id"]) for row in rows] == [answers[0].json()["id"]]


@pytest.mark.usefixtures("unhurried")
async def test_each_new_signal_is_queued_and_workers_are_woken_soon_and_not_for_each(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    listener = await asyncpg.connect(database_url)
    woken: asyncio.Queue[str] = asyncio.Queue()
    await listener.add_listener(
        CHANNEL, lambda _connection, _pid, channel, _payload: woken.put_nowait(channel)
    )
    answers = await asyncio.gather(
        *(client.post(account.webhook, json=ALERT | {"id": number}) for number in range(200))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert await asyncio.wait_for(woken.get(), 5) == CHANNEL
    await asyncio.sleep(0.2)
    assert woken.qsize() < 100
    rows = await listener.fetch(
        "SELECT task, outbox.strategy_id = signals.strategy_id AS fits, attempts FROM outbox"
        " JOIN signals ON signals.id = signal_id"
    )
    assert [tuple(row) for row in rows] == [("signal", True, 0)] * 200
    await client.post(account.webhook, json=ALERT | {"id": 0})
    await asyncio.sleep(0.2)
    before = woken.qsize()
    await client.post(account.webhook, json=ALERT | {"id": "one more"})
    await asyncio.sleep(0.5)
    assert woken.qsize() == before + 1
    await listener.close()


async def test_workers_are_woken_fifty_times_a_second_at_most(settings: Settings) -> None:
    listener = await asyncpg.connect(settings.database_url.get_secret_value())
    woken: list[str] = []
    await listener.add_listener(CHANNEL, lambda *_: woken.append(CHANNEL))
    waker = Waker(settings)
    waker.start()
    started = time.monotonic()
    for _ in range(500):
        waker.wake()
        await asyncio.sleep(0.001)
    elapsed = time.monotonic() - started
    await waker.close()
    await listener.close()
    assert 1 <= len(woken) <= elapsed * 50 + 2


@pytest.mark.usefixtures("unhurried")
async def test_an_alert_that_cannot_be_stored_does_not_take_others_with_it(
    client: httpx.AsyncClient, account: Account, database_url: str, owner_url: str
) -> None:
    await run(owner_url, "ALTER TABLE signals ADD CONSTRAINT poison CHECK (symbol <> 'POISON')")
    try:
        answers = await asyncio.gather(
            *(
                client.post(
                    account.webhook, json=ALERT | {"id": number, "symbol": "POISON" if number == 20 else "A"}
                )
                for number in range(40)
            )
        )
    finally:
        await run(owner_url, "ALTER TABLE signals DROP CONSTRAINT poison")
    assert [number for number, answer in enumerate(answers) if answer.status_code != 202] == [20]
    assert_problem(answers[20], 500)
    assert len(await run(database_url, "SELECT 1 FROM outbox")) == 39
