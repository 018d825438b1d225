"""What Prometheus gets, from one process and from several, and who gets it."""

import asyncio
import os
import platform
import signal
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from tests.conftest import Account, execute
from tests.desk import open_desk, running_worker, until
from tests.network import CuttableProxy, free_port, proxy_to
from tests.receivers import eventually
from tests.test_serve import serving, until_started, workers_of
from tests.test_webhooks import assert_problem
from tests.ws_client import close_code, listen
from tradingbot import __version__
from tradingbot.core.database import Database
from tradingbot.core.errors import UnavailableError
from tradingbot.core.metrics import exchange_call, watch_pool
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import UnknownSymbolError
from tradingbot.worker.periodic import measure

WEBHOOK = "/api/v1/webhooks/tradingview/{token}"
BUILD = {"version": __version__, "python": platform.python_version()}


class Metrics:
    """What one reading gave."""

    def __init__(self, exposition: str) -> None:
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(exposition)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The sample with exactly these labels; None if there is none."""
        return self._samples.get((f"tradingbot_{name}", frozenset(labels.items())))


async def read(port: int) -> Metrics:
    """Reads as a collector does."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Metrics(answer.text)


async def test_any_worker_tells_of_all_and_those_that_are_killed_take_only_their_gauges_with_them(
    tmp_path: Path, account: Account
) -> None:
    async with serving(tmp_path, 3) as (port, log):
        sockets = [await listen(port, account) for _ in range(12)]
        lost = [asyncio.create_task(close_code(socket)) for socket in sockets]
        for number in range(30):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                alert = {"symbol": "A", "action": "buy", "id": number % 20}
                assert (await client.post(account.webhook, json=alert)).is_success

        async def is_told() -> bool:
            metrics = await read(port)
            assert metrics.value("build_info", **BUILD) == 1
            assert metrics.value("webhook_alerts_total", outcome="accepted") == 20
            assert metrics.value("webhook_alerts_total", outcome="duplicate") == 10
            return metrics.value(
                "http_request_seconds_count", route=WEBHOOK, method="POST"
            ) == 30 and metrics.value("websocket_connections") == sum(not task.done() for task in lost)

        await until(is_told)
        for _ in range(6):
            assert await is_told()
        await until_started(log, 3)
        first, *others = workers_of(log)
        os.kill(first, signal.SIGKILL)
        await until_started(log, 4)
        await until(is_told)
        for worker in others:
            os.kill(worker, signal.SIGKILL)
        await until_started(log, 6)
        assert await asyncio.gather(*lost) == [1006] * 12
        await until(is_told)


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        ("127.0.0.1", [], 200),
        ("172.20.0.9", [], 200),
        ("::1", [], 200),
        ("::ffff:10.1.2.3", [], 200),
        ("172.20.0.9", ["10.0.0.7"], 200),
        ("203.0.113.5", [], 404),
        ("2001:db8::1", [], 404),
        ("::ffff:203.0.113.5", [], 404),
        ("172.20.0.9", ["203.0.113.5"], 404),
        ("172.20.0.9", ["10.0.0.7, 203.0.113.5"], 404),
        ("172.20.0.9", ["10.0.0.7", "203.0.113.5"], 404),
        ("172.20.0.9", ["unknown"], 404),
        ("203.0.113.5", ["127.0.0.1"], 404),
    ],
)
async def test_only_the_inside_reads(app: FastAPI, peer: str, forwarded: list[str], status: int) -> None:
    transport = httpx.ASGITransport(app, client=(peer, 1))
    headers = [("X-Forwarded-For", line) for line in forwarded]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == status
    if status == 404:
        assert_problem(answer, 404)
        assert "tradingbot_" not in answer.text


async def test_networks_are_a_setting(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_NETWORKS", "203.0.113.0/24")
    assert [str(network) for network in Settings().metrics_networks] == ["203.0.113.0/24"]


async def test_labels_are_few_and_hold_no_secrets(client: httpx.AsyncClient, account: Account) -> None:
    await client.post(account.webhook, json={"symbol": "A", "action": "buy"})
    await client.get(f"/api/v1/signals/{account.token}", headers=account.headers)
    await client.get(f"/nowhere/{account.token}")
    await client.request("BREW", f"/api/v1/signals?key={account.api_key}")
    told = (await client.get("/metrics")).text
    assert account.token not in told
    assert account.api_key not in told
    metrics = Metrics(told)
    for route, method, status in (
        (WEBHOOK, "POST", "202"),
        ("/api/v1/signals/{signal_id}", "GET", "422"),
        ("unmatched", "GET", "404"),
        ("/api/v1/signals", "other", "405"),
    ):
        assert metrics.value("http_requests_total", route=route, method=method, status=status), route


async def test_the_worker_tells_what_became_of_signals(tmp_path: Path, settings: Settings) -> None:
    port = free_port()
    async with open_desk(settings) as desk:
        strategy = await desk.strategy(max_order_value=1000)
        await desk.queue(strategy)
        await desk.queue(strategy, price=1_000_000)
        async with running_worker(tmp_path, WORKER_METRICS_PORT=str(port)):
            await desk.until_idle()
            metrics = await read(port)
    assert metrics.value("build_info", **BUILD) == 1
    assert metrics.value("signals_total", status="ordered") == 1
    assert metrics.value("signals_total", status="refused") == 1
    assert metrics.value("refusals_total", rule="max_order_value") == 1
    for state in ("new", "submitted", "filled"):
        assert metrics.value("orders_total", exchange="paper", state=state) == 1
    assert metrics.value("fills_total", exchange="paper", side="buy") == 1
    call = {"exchange": "paper", "operation": "place"}
    assert metrics.value("exchange_calls_total", **call, outcome="ok") == 1
    assert metrics.value("exchange_call_seconds_count", **call) == 1
    for pool in ("work", "claims"):
        assert metrics.value("database_connections_in_use", pool=pool) is not None


def test_a_symbol_that_the_exchange_does_not_know_counts_as_rejected() -> None:
    with pytest.raises(UnknownSymbolError), exchange_call("elsewhere", "place"):
        raise UnknownSymbolError
    call = {"exchange": "elsewhere", "operation": "place", "outcome": "rejected"}
    assert REGISTRY.get_sample_value("tradingbot_exchange_calls_total", call) == 1


async def test_length_and_age_of_the_queue(settings: Settings, database_url: str) -> None:
    async with open_desk(settings) as desk:
        strategy = await desk.strategy()
        for _ in range(3):
            await desk.queue(strategy)
        old = "UPDATE outbox SET available_at = now() - interval '1h' WHERE id = (SELECT min(id) FROM outbox)"
        await asyncio.to_thread(execute, database_url, old)
        await measure(desk.database)
        assert REGISTRY.get_sample_value("tradingbot_outbox_rows") == 3
        assert 3600 <= (REGISTRY.get_sample_value("tradingbot_outbox_oldest_seconds") or 0) < 3700
        await asyncio.to_thread(execute, database_url, "DELETE FROM outbox")
        await measure(desk.database)
        assert REGISTRY.get_sample_value("tradingbot_outbox_rows") == 0
        assert REGISTRY.get_sample_value("tradingbot_outbox_oldest_seconds") == 0


def in_use(pool: str) -> float | None:
    return REGISTRY.get_sample_value("tradingbot_database_connections_in_use", {"pool": pool})


async def lose_connection(database: Database, proxy: CuttableProxy) -> None:
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))
        await proxy.hang_up()
        await session.execute(text("SELECT 1"))


async def test_connections_in_use_are_right_also_after_some_are_lost(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy_to(environment["DATABASE_URL"]) as proxy:
        monkeypatch.setenv("DATABASE_URL", proxy.url)
        database = Database(Settings())
        watch_pool(database.engine, "test")
        for _ in range(2):
            async with database.transaction() as one, database.transaction() as two:
                for session in (one, two):
                    await session.execute(text("SELECT 1"))
                assert in_use("test") == 2
            assert in_use("test") == 0
            with pytest.raises(UnavailableError):
                await lose_connection(database, proxy)
            await eventually(lambda: in_use("test") == 0)
        await database.close()
