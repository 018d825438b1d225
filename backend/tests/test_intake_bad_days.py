"""The intake while PostgreSQL restarts, is locked or overrun: nothing that was acknowledged is missing."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from tests import servers
from tests.conftest import Account, client_of, make_account
from tests.network import free_port, proxy_to
from tests.test_webhooks import ALERT, assert_problem
from tradingbot.app import create_app
from tradingbot.core.settings import Settings
from tradingbot.migrations.runner import MigrationSettings, migrate

CLIENTS = 8


@pytest.fixture
def own_postgresql() -> Iterator[servers.RestartablePostgresql]:
    with servers.restartable_postgresql(free_port()) as server:
        asyncio.run(migrate(MigrationSettings(database_url=server.url)))
        yield server


@pytest.mark.parametrize("patience", [10, 0], ids=["stopped", "killed"])
async def test_postgresql_is_restarted_while_clients_send(
    own_postgresql: servers.RestartablePostgresql,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    patience: int,
) -> None:
    monkeypatch.setenv("DATABASE_URL", own_postgresql.url)
    settings = Settings()
    account = await make_account(settings, "trader@mail.test")
    is_over = asyncio.Event()
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        senders = [asyncio.create_task(_send(client, account, name, is_over)) for name in range(CLIENTS)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_postgresql.restart, patience)
        await asyncio.sleep(1)
        is_over.set()
        sent = [one for sender in senders for one in await asyncio.wait_for(sender, 60)]
        assert (await client.get("/api/v1/health/ready")).status_code == 200
    statuses = Counter(status for _, answers in sent for status in answers)
    assert set(statuses) == {200, 202, 503} or set(statuses) == {202, 503}
    stored = await _stored(own_postgresql.url)
    # Each was sent until it was acknowledged.
    assert stored == {name: (1, 1) for name, _ in sent}


async def _send(
    client: httpx.AsyncClient, account: Account, name: int, is_over: asyncio.Event
) -> list[tuple[str, list[int]]]:
    """Sends alert after alert, each again until it is acknowledged; gives their ids and all answers."""
    sent: list[tuple[str, list[int]]] = []
    while not is_over.is_set():
        identifier, answers = f"{name}-{len(sent)}", [503]
        while answers[-1] == 503:
            answer = await client.post(account.webhook, json=ALERT | {"id": identifier})
            answers.append(answer.status_code)
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) > 0
                await asyncio.sleep(0.1)
        sent.append((identifier, answers[1:]))
        await asyncio.sleep(0.005)
    return sent


async def _stored(url: str) -> dict[str, tuple[int, int]]:
    """Gives for each id the number of signals and of rows in the outbox."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT payload->>'id' AS id, count(DISTINCT signals.id) AS signals, count(outbox.id) AS queued"
        " FROM signals LEFT JOIN outbox ON outbox.signal_id = signals.id GROUP BY 1"
    )
    await connection.close()
    return {row["id"]: (row["signals"], row["queued"]) for row in rows}


async def test_a_locked_table_is_503_in_time_and_passes(
    account: Account, database_url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_TIMEOUT", "0.5")
    app = create_app(Settings())
    locker = await asyncpg.connect(database_url)
    async with app.router.lifespan_context(app), client_of(app) as client:
        async with locker.transaction():
            await locker.execute("LOCK TABLE signals IN ACCESS EXCLUSIVE MODE")
            started = time.monotonic()
            answers = await asyncio.gather(
                *(client.post(account.webhook, json=ALERT | {"id": number}) for number in range(30))
            )
            assert time.monotonic() - started < 5
            for answer in answers:
                assert_problem(answer, 503)
                assert int(answer.headers["retry-after"]) > 0
            assert (await client.get("/api/v1/health")).status_code == 200
        for number in range(30):
            again = await client.post(account.webhook, json=ALERT | {"id": number})
            assert again.status_code in {200, 202}
    await locker.close()
    assert await _stored(database_url) == {str(number): (1, 1) for number in range(30)}


async def test_more_alerts_than_may_wait_are_turned_away_at_once(
    account: Account, database_url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_CONNECTIONS", "1")
    app = create_app(Settings())
    locker = await asyncpg.connect(database_url)
    async with app.router.lifespan_context(app), client_of(app) as client:
        async with locker.transaction():
            await locker.execute("LOCK TABLE signals IN ACCESS EXCLUSIVE MODE")
            answers = await asyncio.gather(
                *(client.post(account.webhook, json=ALERT | {"id": number}) for number in range(1200))
            )
        assert {answer.status_code for answer in answers} == {503}
        details = Counter(answer.json()["detail"] for answer in answers)
        assert details["Too many alerts are waiting."] >= 100
        assert (await client.post(account.webhook, json=ALERT)).status_code == 202
    await locker.close()


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("is_committed", [False, True], ids=["before-its-commit", "after-its-commit"])
async def test_a_connection_that_breaks_while_an_alert_is_stored(
    account: Account,
    database_url: str,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    is_committed: bool,
) -> None:
    async with proxy_to(database_url) as proxy:
        monkeypatch.setenv("DATABASE_URL", proxy.url)
        monkeypatch.setenv("WEBHOOK_CONNECTIONS", "1")
        app = create_app(Settings())
        locker = await asyncpg.connect(database_url)
        async with app.router.lifespan_context(app), client_of(app) as client:
            assert (await client.post(account.webhook, json=ALERT | {"id": 0})).status_code == 202
            lock = locker.transaction()
            await lock.start()
            await locker.execute("LOCK TABLE signals IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(client.post(account.webhook, json=ALERT | {"id": 1}))
            await _until_waiting(locker)
            if is_committed:
                proxy.silence()
                await lock.rollback()
                await _until_stored(locker, 2)
                await proxy.hang_up()
                proxy.speak()
            else:
                await proxy.hang_up()
                await lock.rollback()
            # The first statement may be committed all the same; the second finds its row, or makes it.
            status = (await waiting).status_code
            assert status == 200 if is_committed else status in {200, 202}
        await locker.close()
    assert await _stored(database_url) == {"0": (1, 1), "1": (1, 1)}


@pytest.mark.usefixtures("unhurried")
async def test_a_strategy_that_is_deleted_while_its_alert_is_stored(
    account: Account, client: httpx.AsyncClient, database_url: str
) -> None:
    other = await client.post("/api/v1/strategies", json={"name": "other"}, headers=account.headers)
    hook = other.json()["webhook_url"].removeprefix("http://localhost:8001")
    deleter = await asyncpg.connect(database_url)
    deletion = deleter.transaction()
    await deletion.start()
    await deleter.execute("DELETE FROM strategies WHERE name = 'other'")
    # Both get into one statement, which waits for the deletion.
    waiting = [asyncio.create_task(client.post(path, json=ALERT)) for path in (hook, account.webhook)]
    await _until_waiting(deleter)
    await deletion.commit()
    await deleter.close()
    gone, stored = await asyncio.gather(*waiting)
    assert_problem(gone, 404)
    assert stored.status_code == 202


async def _until_waiting(connection: asyncpg.Connection) -> None:
    """Waits until a statement of somebody waits for a lock; *connection* is in a transaction."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.02)
            await connection.execute("SELECT pg_stat_clear_snapshot()")


async def _until_stored(connection: asyncpg.Connection, count: int) -> None:
    for _ in range(1200):
        if await connection.fetchval("SELECT count(*) FROM signals") == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was stored")


async def test_what_waits_at_the_end_is_answered(
    account: Account, database_url: str, environment: dict[str, str]
) -> None:
    app = create_app(Settings())
    locker = await asyncpg.connect(database_url)
    async with client_of(app) as client:
        async with app.router.lifespan_context(app), locker.transaction():
            await locker.execute("LOCK TABLE signals IN ACCESS EXCLUSIVE MODE")
            waiting = [
                asyncio.create_task(client.post(account.webhook, json=ALERT | {"id": number}))
                for number in range(5)
            ]
            await _until_waiting(locker)
        started = time.monotonic()
        for answer in await asyncio.gather(*waiting):
            assert answer.status_code in {202, 503}
        assert time.monotonic() - started < 2
    await locker.close()


async def test_workers_that_cannot_be_woken_do_not_hold_up_alerts(
    account: Account, app: FastAPI, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    # The waker's connection gets an address where nobody answers; the intake's does not.
    app.state.context.intake._waker._connection._url = f"postgresql://x:y@127.0.0.1:{free_port()}/x"
    for number in range(3):
        assert (await client.post(account.webhook, json=ALERT | {"id": number})).status_code == 202
        await asyncio.sleep(0.1)
    assert capsys.readouterr().out.count("workers are not woken") == 1


@pytest.mark.parametrize("declares", [True, False], ids=["with-its-length", "without"])
async def test_ten_megabytes_are_refused_without_reading_them(
    account: Account, app: FastAPI, declares: bool
) -> None:
    chunk, size = b" " * 16384, 10 * 1024 * 1024
    received = 0
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": received < size}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": account.webhook,
        "raw_path": account.webhook.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-length", str(size).encode())] if declares else [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == 413
    assert json.loads(b"".join(message.get("body", b"") for message in sent[1:]))["status"] == 413
    assert received == (0 if declares else 5 * len(chunk))
