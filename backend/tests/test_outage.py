"""PostgreSQL or Redis away: quick, honest answers, and everything as before once they are back."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import httpx
import pytest
from sqlalchemy import text

from tests.conftest import Account, MakeDatabase, client_of, execute, make_account
from tests.network import CuttableProxy, proxy_to
from tests.test_webhooks import assert_problem
from tradingbot.app import create_app
from tradingbot.core.database import Database
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, new_token


def alert(number: int) -> dict[str, object]:
    return {"symbol": "BTCUSDT", "action": "buy", "id": number}


@asynccontextmanager
async def behind_proxy(
    database_url: str, monkeypatch: pytest.MonkeyPatch, *, cut: bool = False
) -> AsyncIterator[tuple[CuttableProxy, httpx.AsyncClient]]:
    """The application, with a proxy between it and PostgreSQL that is cut from the start if `cut`."""
    async with proxy_to(database_url) as proxy:
        if cut:
            await proxy.cut()
        monkeypatch.setenv("DATABASE_URL", proxy.url)
        app = create_app(Settings())
        async with app.router.lifespan_context(app), client_of(app) as client:
            yield proxy, client


def assert_unavailable(answer: httpx.Response) -> None:
    assert_problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0


async def test_database_cut_and_back(
    account: Account, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_proxy(database_url, monkeypatch) as (proxy, client):
        assert (await client.post(account.webhook, json=alert(1))).status_code == 202
        await proxy.cut()
        started = time.monotonic()
        assert_unavailable(await client.post(account.webhook, json=alert(2)))
        assert time.monotonic() - started < 3
        assert_unavailable(await client.get("/api/v1/signals", headers=account.headers))
        not_ready = await client.get("/api/v1/health/ready")
        assert_unavailable(not_ready)
        assert not_ready.json()["checks"]["postgresql"] == "does not answer"
        assert not_ready.json()["checks"]["redis"] == "ok"
        assert (await client.get("/api/v1/health")).status_code == 200
        await proxy.open()
        assert (await client.post(account.webhook, json=alert(2))).status_code == 202
        assert (await client.get("/api/v1/health/ready")).status_code == 200


async def test_database_restarted_between_two_alerts(
    account: Account, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_proxy(database_url, monkeypatch) as (proxy, client):
        assert (await client.post(account.webhook, json=alert(1))).status_code == 202
        await proxy.cut()
        await proxy.open()
        assert (await client.post(account.webhook, json=alert(2))).status_code == 202


async def test_what_postgresql_ended_is_replaced_before_a_request_gets_it(
    account: Account, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_proxy(database_url, monkeypatch) as (proxy, client):
        for _ in range(Settings().database_pool_size + 1):
            await proxy.cut()
            await proxy.open()
            assert (await client.get("/api/v1/signals", headers=account.headers)).status_code == 200


def _end_while_busy(url: str, process: int) -> None:
    """Ends a process of PostgreSQL while this one's event loop stands still."""
    with ThreadPoolExecutor(1) as other:
        other.submit(execute, url, f"SELECT pg_terminate_backend({process})").result()
    time.sleep(1.1)


async def test_what_ended_while_nobody_looked_is_replaced_as_well(
    settings: Settings, database_url: str
) -> None:
    """A process that was too busy to see the end of its connections still has them for open."""
    database = Database(settings)
    async with database.single() as session:
        process = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    _end_while_busy(database_url, process)
    async with database.single() as session:
        assert (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one() != process
    await database.close()


async def test_connections_are_open_before_the_first_request(account: Account, settings: Settings) -> None:
    planned = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(trim(query, E' \\n'), 'WITH sent AS')"
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        database = app.state.context.database
        assert database.engine.pool.checkedin() == settings.database_pool_size
        async with database.single() as session:
            assert (await session.execute(text(planned))).scalar_one() == settings.webhook_connections


async def test_a_start_without_the_database(
    account: Account, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_proxy(database_url, monkeypatch, cut=True) as (proxy, client):
        assert_unavailable(await client.post(account.webhook, json=alert(1)))
        assert_unavailable(await client.get("/api/v1/signals", headers=account.headers))
        await proxy.open()
        assert (await client.post(account.webhook, json=alert(1))).status_code == 202
        assert (await client.get("/api/v1/signals", headers=account.headers)).status_code == 200


async def test_database_that_is_silent(
    account: Account, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_proxy(database_url, monkeypatch) as (proxy, client):
        assert (await client.post(account.webhook, json=alert(1))).status_code == 202
        proxy.silence()
        started = time.monotonic()
        assert_unavailable(await client.post(account.webhook, json=alert(2)))
        assert time.monotonic() - started < 3
        assert (await client.get("/api/v1/health/ready")).status_code == 503
        proxy.speak()
        assert (await client.post(account.webhook, json=alert(3))).status_code == 202


async def test_pool_exhausted(
    account: Account, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_POOL_SIZE", "1")
    monkeypatch.setenv("DATABASE_MAX_OVERFLOW", "0")
    monkeypatch.setenv("DATABASE_POOL_TIMEOUT", "0.2")
    app = create_app(Settings())
    async with app.router.lifespan_context(app), client_of(app) as client:
        async with app.state.context.database.engine.connect():
            started = time.monotonic()
            assert_unavailable(await client.get("/api/v1/signals", headers=account.headers))
            assert time.monotonic() - started < 3
            # Alerts have connections of their own.
            assert (await client.post(account.webhook, json=alert(1))).status_code == 202
        assert (await client.get("/api/v1/signals", headers=account.headers)).status_code == 200


async def test_a_deadlock_passes_when_one_party_tries_again(settings: Settings, database_url: str) -> None:
    await make_account(settings, "a@mail.test")
    await make_account(settings, "b@mail.test")
    database = Database(settings)
    both = asyncio.Barrier(2)

    async def change(first: str, second: str) -> str:
        statement = text("UPDATE users SET created_at = now() WHERE email = :email")
        try:
            async with database.transaction() as session:
                await session.execute(statement, {"email": first})
                await both.wait()
                await session.execute(statement, {"email": second})
        except UnavailableError:
            return "try again"
        return "done"

    addresses = ("a@mail.test", "b@mail.test")
    results = await asyncio.gather(change(*addresses), change(*addresses[::-1]))
    await database.close()
    assert sorted(results) == ["done", "try again"]


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_intake_does_not_need_redis(
    account: Account, redis_url: str, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    async with proxy_to(redis_url) as proxy:
        monkeypatch.setenv("REDIS_URL", proxy.url)
        app = create_app(Settings())
        async with app.router.lifespan_context(app), client_of(app) as client:
            assert (await client.get("/api/v1/health/ready")).status_code == 200
            if silent:
                proxy.silence()
            else:
                await proxy.cut()
            for number in range(5):
                started = time.monotonic()
                assert (await client.post(account.webhook, json=alert(number))).status_code == 202
                assert time.monotonic() - started < 1
            ready = await client.get("/api/v1/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert ready.json()["checks"]["redis"] == "does not answer"


async def test_schema_that_is_not_at_head(
    make_database: MakeDatabase, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", await asyncio.to_thread(make_database))
    app = create_app(Settings())
    async with app.router.lifespan_context(app), client_of(app) as client:
        not_ready = await client.get("/api/v1/health/ready")
        assert_unavailable(not_ready)
        assert "tradingbot migrate" in not_ready.json()["checks"]["schema"]
        path = f"/api/v1/webhooks/tradingview/{new_token(TokenKind.WEBHOOK)}"
        assert_unavailable(await client.post(path, json=alert(1)))
