"""Live events on bad days: Redis or PostgreSQL away, clients that do not read, rights that end."""

import asyncio
import secrets
import socket as sockets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY
from redis.asyncio.client import Pipeline, PubSub
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests import servers
from tests.conftest import Account, execute, make_account
from tests.network import free_port, proxy_to
from tests.receivers import eventually
from tests.test_serve import serving
from tests.test_webhooks import assert_problem
from tests.ws_client import (
    PATIENCE,
    close_code,
    listen,
    live_server,
    open_live,
    protocols,
    receive,
    record_events,
    sequences,
    url,
    user_id_of,
)
from tradingbot.auth.principal import Principal, Scope
from tradingbot.core.database import Database
from tradingbot.core.redis import make_redis
from tradingbot.core.settings import Settings
from tradingbot.events import protocol, tickets
from tradingbot.events.protocol import LiveProtocol
from tradingbot.events.publisher import EventPublisher
from tradingbot.events.schemas import CHANNEL, PROTOCOL, Event

POLL = "0.2"


@pytest.fixture(autouse=True)
def quick_poll(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_POLL_INTERVAL", POLL)


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[Database]:
    """A database whose events are published, as in another process."""
    redis = make_redis(settings)
    publisher = EventPublisher(redis)
    publisher.start()
    database = Database(settings, publisher.publish_all)
    yield database
    await publisher.close()
    await database.close()
    await redis.aclose()


async def health(socket: ClientConnection, **expected: str) -> None:
    """Waits until the client is told of this."""
    async with asyncio.timeout(PATIENCE):
        while True:
            message = await receive(socket)
            if message["type"] == "health" and expected.items() <= message["data"].items():
                assert "sequence" not in message
                return


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
            answer = await refused(port, offered)
            assert answer == 503
            await proxy.open()
            assert await sequences(client, 4) == [3, 4, 5, 6]
            await health(late, postgresql="ok")
            await client.close()
            await late.close()
            await quiet.close()


async def refused(port: int, offered: list[Subprotocol]) -> int:
    """Status of a handshake that is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(handshake(offered))
    line = await asyncio.wait_for(reader.readline(), PATIENCE)
    writer.close()
    return int(line.split()[1])


def handshake(offered: list[Subprotocol]) -> bytes:
    """A handshake as it goes over the line."""
    lines = (
        "GET /api/v1/ws HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {', '.join(offered)}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


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


def drops(reason: str) -> float:
    """How many clients this process has dropped for this."""
    return REGISTRY.get_sample_value("tradingbot_websocket_drops_total", {"reason": reason}) or 0.0


def deaf_socket(port: int) -> sockets.socket:
    """A connection that takes little before it is read."""
    connection = sockets.socket()
    connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.setblocking(False)
    return connection


async def deaf_client(port: int, account: Account, after: int | None = None) -> ClientConnection:
    """A client that reads nothing until it is asked to."""
    offered = await protocols(port, account)
    return await connect(
        url(port, after), subprotocols=offered, sock=deaf_socket(port), max_queue=1, compression=None
    )


async def test_a_slow_client_is_dropped_and_the_others_go_on(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBSOCKET_SEND_TIMEOUT", "1")
    settings = Settings()
    before = drops("slow")
    async with live_server(settings) as port, publishing(settings) as database:
        quick, slow = await listen(port, account, compression=None), await deaf_client(port, account)
        user = await user_id_of(database, account)
        received, _ = await asyncio.gather(
            sequences(quick, 300), record_events(database, user, 300, text="x" * 40_000)
        )
        assert received == list(range(1, 301)), "nobody waits for the slow one"
        await eventually(lambda: drops("slow") == before + 1)
        assert await close_code(slow) == 1013
        await record_events(database, user, 1)
        assert await sequences(quick, 1) == [301]
        await quick.close()


async def test_a_client_that_reads_nothing_is_cut_off(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = []

    def connection_lost(connection: LiveProtocol, error: Exception | None) -> None:
        lost.append(connection)
        WebSocketsSansIOProtocol.connection_lost(connection, error)

    monkeypatch.setattr(LiveProtocol, "connection_lost", connection_lost, raising=False)
    monkeypatch.setattr(protocol, "_PATIENCE", 0.1)
    monkeypatch.setenv("WEBSOCKET_SEND_TIMEOUT", "0.2")
    settings = Settings()
    async with live_server(settings) as port, publishing(settings) as database:
        await record_events(database, await user_id_of(database, account), 300, text="x" * 40_000)
        silent = await deaf_client(port, account, 0)
        await eventually(lambda: bool(lost))
        # It is not told: there is no place left for it.
        assert await close_code(silent) == 1006


async def test_a_client_that_reads_nothing_does_not_keep_the_server_from_ending(
    tmp_path: Path, account: Account
) -> None:
    # `serving` waits for 20 seconds.
    async with (
        serving(tmp_path, 1, SHUTDOWN_TIMEOUT="60", WEBSOCKET_SEND_TIMEOUT="60") as (port, _log),
        publishing(Settings()) as database,
    ):
        quick, deaf = await listen(port, account, compression=None), await deaf_client(port, account)
        user = await user_id_of(database, account)
        received, _ = await asyncio.gather(
            sequences(quick, 300), record_events(database, user, 300, text="x" * 40_000)
        )
        assert len(received) == 300
    assert await close_code(quick) == 1012
    deaf.transport.abort()


INSERT_SESSION = """
    INSERT INTO sessions (id, user_id, token_hash, expires_at)
    SELECT '{}', id, 'hash', now() + interval '1 day' FROM users WHERE email = '{}'
"""


async def ticket_of_session(settings: Settings, account: Account) -> list[Subprotocol]:
    """A ticket that a signed-in user got."""
    database, redis, identity = Database(settings), make_redis(settings), uuid4()
    statement = INSERT_SESSION.format(identity, account.email)
    await asyncio.to_thread(execute, settings.database_url.get_secret_value(), statement)
    principal = Principal(await user_id_of(database, account), frozenset(Scope), identity)
    ticket = await tickets.issue(redis, principal, settings.secret_key.get_secret_value(), 30)
    await redis.aclose()
    await database.close()
    return [Subprotocol(PROTOCOL), Subprotocol(f"ticket.{ticket}")]


TRADER = "(SELECT id FROM users WHERE email = 'trader@mail.test')"


@pytest.mark.parametrize(
    ("statement", "ends"),
    [
        ("UPDATE sessions SET revoked_at = now()", "session"),
        ("UPDATE sessions SET expires_at = now()", "session"),
        ("DELETE FROM sessions", "session"),
        ("UPDATE api_keys SET revoked_at = now() WHERE user_id = {user}", "key"),
        ("UPDATE api_keys SET expires_at = now() WHERE user_id = {user}", "key"),
        ("UPDATE users SET is_active = false WHERE id = {user}", "both"),
        ("DELETE FROM users WHERE id = {user}", "both"),
    ],
)
async def test_connections_end_with_the_right_to_them(
    account: Account, settings: Settings, database_url: str, statement: str, ends: str
) -> None:
    other = await make_account(settings, "other@mail.test")
    async with live_server(Settings()) as port, publishing(settings) as database:
        by_key, theirs = await listen(port, account), await listen(port, other)
        by_session = await connect(url(port), subprotocols=await ticket_of_session(settings, account))
        assert (await receive(by_session))["type"] == "ready"
        await asyncio.to_thread(execute, database_url, statement.format(user=TRADER))
        for name, client in (("key", by_key), ("session", by_session)):
            if ends in (name, "both"):
                assert await close_code(client) == 1008
        await record_events(database, await user_id_of(database, other), 1)
        assert await sequences(theirs, 1) == [1]
        if ends != "both":
            await record_events(database, await user_id_of(database, account), 1)
            assert await sequences(by_session if ends == "key" else by_key, 1) == [1]
        for client in (by_key, by_session, theirs):
            await client.close()


async def test_a_ticket_of_a_revoked_session_opens_nothing(
    account: Account, settings: Settings, database_url: str
) -> None:
    offered = await ticket_of_session(settings, account)
    await asyncio.to_thread(execute, database_url, "UPDATE sessions SET revoked_at = now()")
    async with live_server(Settings()) as port:
        assert await refused(port, offered) == 401


async def test_idle_connections_end_and_busy_ones_do_not(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBSOCKET_IDLE_TIMEOUT", "1")
    async with live_server(Settings()) as port:
        idle, busy = await listen(port, account), await listen(port, account)

        async def stay() -> None:
            while True:
                await busy.send("here")
                await asyncio.sleep(0.2)

        staying = asyncio.create_task(stay())
        assert await close_code(idle) == 1000
        assert idle.close_reason == "idle"
        await busy.ping()
        assert not staying.done(), "the busy one can still send"
        staying.cancel()
        await busy.close()
