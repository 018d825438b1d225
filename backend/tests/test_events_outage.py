"""Live events on bad days: Redis, PostgreSQL or the trading worker away."""

import asyncio
import secrets
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from redis.asyncio.client import Pipeline, PubSub

from tests import servers
from tests.conftest import Account, execute
from tests.desk import running_worker
from tests.network import free_port, proxy_to
from tests.receivers import eventually
from tests.test_webhooks import assert_problem
from tests.ws_client import (
    events,
    health,
    listen,
    live_server,
    open_live,
    protocols,
    publishing,
    receive,
    record_events,
    refusal,
    sequences,
    user_id_of,
)
from tradingbot.core.database import Database
from tradingbot.core.redis import make_redis
from tradingbot.core.settings import Settings
from tradingbot.events.schemas import CHANNEL, Event

POLL = "0.2"


@pytest.fixture(autouse=True)
def quick_poll(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_POLL_INTERVAL", POLL)


class RedisContainer:
    """A Redis that can be stopped and started at the same address."""

    def __init__(self) -> None:
        self._name = f"tradingbot-backend-test-redis-{secrets.token_hex(4)}"
        port, password = free_port(), secrets.token_hex(12)
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        publish = ("--publish", f"127.0.0.1:{port}:6379")
        command = ("redis-server", "--requirepass", password, "--save", "")
        self._docker("run", "--detach", "--name", self._name, *publish, servers.REDIS_IMAGE, *command)

    def stop(self) -> None:
        self._docker("stop", "--time", "1", self._name)

    def start(self) -> None:
        self._docker("start", self._name)

    def remove(self) -> None:
        self._docker("rm", "--force", "--volumes", self._name)

    @staticmethod
    def _docker(*arguments: str) -> None:
        subprocess.run(["docker", *arguments], check=True, capture_output=True)


async def test_redis_restarted(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    container = await asyncio.to_thread(RedisContainer)
    monkeypatch.setenv("REDIS_URL", container.url)
    settings = Settings()
    try:
        async with live_server(settings) as port, publishing(settings) as database:
            user = await user_id_of(database, account)
            client, redis = await listen(port, account), make_redis(settings)
            await record_events(database, user, 2)
            assert await sequences(client, 2) == [1, 2]
            await asyncio.to_thread(container.stop)
            await health(client, redis="away", postgresql="ok")
            await record_events(database, user, 250)
            assert await sequences(client, 250) == list(range(3, 253))
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", headers=account.headers
            ) as http:
                no_ticket = await http.post("/api/v1/ws/tickets")
                assert_problem(no_ticket, 503)
                assert int(no_ticket.headers["retry-after"]) > 0
                answer = await http.get("/api/v1/events", params={"after": 250})
                assert [item["sequence"] for item in answer.json()["items"]] == [251, 252]
            await asyncio.to_thread(container.start)
            await health(client, redis="ok")
            # Only Redis has this one.
            only_live = Event(user_id=user, sequence=253, type="order", data={})
            await redis.publish(CHANNEL, only_live.model_dump_json())
            assert await sequences(client, 1) == [253]
            await redis.aclose()
            await client.close()
    finally:
        await asyncio.to_thread(container.remove)


async def test_redis_that_is_silent(
    account: Account, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy_to(redis_url) as proxy:
        monkeypatch.setenv("REDIS_URL", proxy.url)
        settings = Settings()
        async with live_server(settings) as port, publishing(settings) as database:
            client = await listen(port, account)
            proxy.silence()
            await record_events(database, await user_id_of(database, account), 3)
            assert await sequences(client, 3) == [1, 2, 3]
            await health(client, redis="away")
            proxy.speak()
            await health(client, redis="ok")
            await client.close()


async def test_what_redis_missed_comes_as_soon_as_it_is_back(
    account: Account, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTS_POLL_INTERVAL", "600")
    async with proxy_to(redis_url) as proxy:
        monkeypatch.setenv("REDIS_URL", proxy.url)
        settings = Settings()
        async with live_server(settings) as port, publishing(settings) as database:
            client = await listen(port, account)
            await proxy.cut()
            await health(client, redis="away")
            await record_events(database, await user_id_of(database, account), 3)
            await proxy.open()
            assert await sequences(client, 3) == [1, 2, 3]
            await client.close()


async def test_alerts_are_traded_and_told_of_while_redis_is_away(
    tmp_path: Path, account: Account, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy_to(redis_url) as proxy:
        monkeypatch.setenv("REDIS_URL", proxy.url)
        async with (
            live_server(Settings()) as port,
            running_worker(tmp_path),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            client = await listen(port, account)
            await proxy.cut()
            await health(client, redis="away")
            told: list[dict[str, Any]] = []
            for number in range(4):
                if number == 3:
                    await proxy.open()
                    await health(client, redis="ok")
                alert = {"symbol": "A", "action": "buy", "quantity": 1, "price": 100, "id": number}
                assert (await http.post(account.webhook, json=alert)).status_code == 202
                while [event["data"].get("state") for event in told].count("filled") == number:
                    told += await events(client, 1)
            await client.close()
    assert [event["sequence"] for event in told] == list(range(1, len(told) + 1))
    types = [event["type"] for event in told if event["type"] != "signal"]
    assert types == ["order", "order", "fill", "position", "order"] * 4


@pytest.mark.parametrize(("kind", "method"), [(PubSub, "get_message"), (Pipeline, "execute")])
async def test_a_fault_of_ours_is_not_the_end(
    account: Account, monkeypatch: pytest.MonkeyPatch, kind: type[Any], method: str
) -> None:
    sound = getattr(kind, method)
    faults = ["once"]

    async def faulty(self: Any, *arguments: Any, **options: Any) -> Any:
        if faults:
            raise RuntimeError(faults.pop())
        return await sound(self, *arguments, **options)

    monkeypatch.setenv("EVENTS_POLL_INTERVAL", "600")
    monkeypatch.setattr(kind, method, faulty)
    settings = Settings()
    async with live_server(settings) as port, publishing(settings) as database:
        client = await listen(port, account)
        user = await user_id_of(database, account)
        await record_events(database, user, 1)
        await eventually(lambda: not faults)
        await record_events(database, user, 1)
        assert await sequences(client, 2) == [1, 2]
        await client.close()


async def test_postgresql_away_and_back(
    account: Account, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = Settings()
    async with proxy_to(database_url) as proxy:
        monkeypatch.setenv("DATABASE_URL", proxy.url)
        async with live_server(Settings()) as port, publishing(direct) as database:
            user, quiet = await user_id_of(database, account), Database(direct)
            client = await listen(port, account)
            late = await listen(port, account)
            offered = await protocols(port, account)
            await proxy.cut()
            await record_events(database, user, 2)
            assert await sequences(client, 2) == [1, 2], "Redis brings them"
            await health(client, postgresql="away")
            await record_events(quiet, user, 3)
            await record_events(database, user, 1)
            assert_problem(await refusal(port, offered), 503)
            await proxy.open()
            assert await sequences(client, 4) == [3, 4, 5, 6]
            await health(late, postgresql="away")
            await health(late, postgresql="ok")
            await client.close()
            await late.close()
            await quiet.close()


async def test_a_worker_that_does_nothing_is_told(
    account: Account, settings: Settings, database_url: str
) -> None:
    async with live_server(Settings()) as port:
        client = await listen(port, account)
        waiting = (
            "INSERT INTO signals (user_id, strategy_id, dedup_key, symbol, action, payload, received_at)"
            " SELECT user_id, id, 'x', 'A', 'buy', '{}', now() FROM strategies",
            "INSERT INTO outbox (task, strategy_id, signal_id, available_at)"
            " SELECT 'signal', strategy_id, id, now() - interval '1 minute' FROM signals",
        )
        await asyncio.to_thread(execute, database_url, *waiting)
        await health(client, worker="behind")
        await asyncio.to_thread(execute, database_url, "DELETE FROM outbox")
        await health(client, worker="ok")
        await asyncio.to_thread(execute, database_url, waiting[1])
        await health(client, worker="behind")
        await client.close()
        await asyncio.to_thread(execute, database_url, "DELETE FROM outbox")
        await eventually(lambda: REGISTRY.get_sample_value("tradingbot_websocket_connections") == 0)
        await asyncio.sleep(2 * float(POLL))
        later = await open_live(port, account)
        assert (await receive(later))["data"]["worker"] == "ok", "what was once is not told"
        await later.close()
