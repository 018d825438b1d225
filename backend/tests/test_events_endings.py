"""How live connections end: slow and silent clients, rights that end, idleness."""

import asyncio
import socket as sockets
from collections.abc import Awaitable
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.typing import Subprotocol

from tests.conftest import Account, execute, make_account
from tests.receivers import eventually
from tests.test_serve import serving
from tests.test_webhooks import assert_problem
from tests.ws_client import (
    LiveClient,
    close_code,
    connect_live,
    listen,
    live_server,
    open_live,
    publishing,
    receive,
    record_events,
    refusal,
    sequences,
    user_id_of,
)
from tradingbot.auth.principal import Principal, Scope
from tradingbot.core.database import Database
from tradingbot.core.redis import make_redis
from tradingbot.core.settings import Settings
from tradingbot.events import protocol, tickets
from tradingbot.events.protocol import LARGEST_MESSAGE, LiveProtocol
from tradingbot.events.schemas import PROTOCOL


@pytest.fixture(autouse=True)
def quick_poll(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_POLL_INTERVAL", "0.2")


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


async def deaf_client(port: int, account: Account, after: int | None = None) -> LiveClient:
    """A client that reads nothing until it is asked to."""
    return await open_live(port, account, after, sock=deaf_socket(port), max_queue=1, compression=None)


async def test_a_slow_client_is_dropped_and_the_others_go_on(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBSOCKET_SEND_TIMEOUT", "1")
    settings = Settings()
    before = drops("slow")
    async with live_server(settings) as port, publishing(settings) as database:
        quick, slow = await listen(port, account, compression=None), await deaf_client(port, account)
        user = await user_id_of(database, account)

        async def read_when_dropped() -> int | None:
            await eventually(lambda: drops("slow") == before + 1)
            return await close_code(slow)

        received, code, _ = await asyncio.gather(
            sequences(quick, 300), read_when_dropped(), record_events(database, user, 300, text="x" * 40_000)
        )
        assert received == list(range(1, 301)), "nobody waits for the slow one"
        assert code == 1013
        await record_events(database, user, 1)
        assert await sequences(quick, 1) == [301]
        await quick.close()


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[LiveProtocol]:
    """The server's ends of the connections that it has given up."""
    found: list[LiveProtocol] = []

    def connection_lost(connection: LiveProtocol, error: Exception | None) -> None:
        found.append(connection)
        WebSocketsSansIOProtocol.connection_lost(connection, error)

    monkeypatch.setattr(LiveProtocol, "connection_lost", connection_lost, raising=False)
    return found


async def test_a_client_that_reads_nothing_is_cut_off(
    account: Account, monkeypatch: pytest.MonkeyPatch, lost: list[LiveProtocol]
) -> None:
    monkeypatch.setattr(protocol, "_PATIENCE", 0.1)
    monkeypatch.setenv("WEBSOCKET_SEND_TIMEOUT", "0.2")
    settings = Settings()
    async with live_server(settings) as port, publishing(settings) as database:
        await record_events(database, await user_id_of(database, account), 60, text="x" * 200_000)
        silent = await deaf_client(port, account, 0)
        await eventually(lambda: bool(lost))
        # It is not told: there is no place left for it.
        assert await close_code(silent) == 1006


async def until_stuck(monkeypatch: pytest.MonkeyPatch, open_client: Awaitable[LiveClient]) -> LiveClient:
    """Opens a client, and waits until the server cannot write to it."""
    paused: list[LiveProtocol] = []

    def pause_writing(connection: LiveProtocol) -> None:
        paused.append(connection)
        WebSocketsSansIOProtocol.pause_writing(connection)

    monkeypatch.setattr(LiveProtocol, "pause_writing", pause_writing, raising=False)
    client, times = await open_client, 0

    def is_stuck() -> bool:
        nonlocal times
        times = times + 1 if paused and not paused[-1].writable.is_set() else 0
        return times == 15

    await eventually(is_stuck)
    return client


CLOSE, NONSENSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8", b"\x83\x80\x00\x00\x00\x00"


@pytest.mark.parametrize("frame", [CLOSE, NONSENSE], ids=["close", "nonsense"])
async def test_a_client_that_says_goodbye_and_reads_nothing_is_cut_off(
    account: Account, monkeypatch: pytest.MonkeyPatch, lost: list[LiveProtocol], frame: bytes
) -> None:
    monkeypatch.setattr(protocol, "_PATIENCE", 0.1)
    settings = Settings()
    async with live_server(settings) as port, publishing(settings) as database:
        await record_events(database, await user_id_of(database, account), 60, text="x" * 200_000)
        silent = await until_stuck(monkeypatch, deaf_client(port, account, 0))
        silent.transport.write(frame)
        await eventually(lambda: bool(lost))
        silent.transport.abort()


TOO_LARGE = b"\x81\xff" + (LARGEST_MESSAGE + 1).to_bytes(8, "big") + b"\x00" * 4


@pytest.mark.parametrize(("frame", "code"), [(TOO_LARGE, 1009), (NONSENSE, 1002)], ids=["large", "nonsense"])
async def test_an_event_that_comes_while_the_protocol_closes_is_no_error(
    account: Account, monkeypatch: pytest.MonkeyPatch, frame: bytes, code: int
) -> None:
    """It closes at what a client may not send; whoever is about to send is told that the client is gone."""
    sending: list[asyncio.Task[None]] = []
    closes = LiveProtocol.handle_parser_exception

    def send_and_close(connection: LiveProtocol) -> None:
        event: ASGISendEvent = {"type": "websocket.send", "bytes": None, "text": "an event"}
        sending.append(asyncio.create_task(connection.send(event)))
        closes(connection)

    monkeypatch.setattr(LiveProtocol, "handle_parser_exception", send_and_close)
    async with live_server(Settings()) as port:
        client = await listen(port, account)
        client.transport.write(frame)
        assert await close_code(client) == code
        with pytest.raises(ClientDisconnected):
            await sending[0]


async def test_the_end_of_the_server_is_told_although_another_client_is_just_closing(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_PATIENCE", 600)
    settings = Settings()
    async with publishing(settings) as database:
        async with live_server(settings) as port:
            await record_events(database, await user_id_of(database, account), 60, text="x" * 200_000)
            earlier = await listen(port, account)
            silent = await until_stuck(monkeypatch, deaf_client(port, account, 0))
            later = await listen(port, account)
            silent.transport.write(CLOSE)
            await eventually(lambda: REGISTRY.get_sample_value("tradingbot_websocket_connections") == 2)
        assert await close_code(earlier) == 1012
        assert await close_code(later) == 1012
        silent.transport.abort()


async def test_the_end_of_the_server_sends_clients_away_one_after_the_other(account: Account) -> None:
    ends: list[float] = []

    async def follow(client: LiveClient) -> None:
        assert await close_code(client) == 1012
        ends.append(asyncio.get_running_loop().time())

    async with live_server(Settings()) as port:
        following = [asyncio.create_task(follow(await listen(port, account))) for _ in range(8)]
    await asyncio.gather(*following)
    # Eight moments out of four seconds: they are that near to each other once in a million times.
    assert ends[-1] - ends[0] > 0.4


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
    account: Account, settings: Settings, owner_url: str, statement: str, ends: str
) -> None:
    other = await make_account(settings, "other@mail.test")
    async with live_server(Settings()) as port, publishing(settings) as database:
        by_key, theirs = await listen(port, account), await listen(port, other)
        by_session = await connect_live(port, await ticket_of_session(settings, account))
        assert (await receive(by_session))["type"] == "ready"
        await asyncio.to_thread(execute, owner_url, statement.format(user=TRADER))
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
        assert_problem(await refusal(port, offered), 401)


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
