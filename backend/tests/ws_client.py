"""A client of the live events, a server in this process to speak to, and events to speak of."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from sqlalchemy import select
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.conftest import Account
from tests.network import free_port
from tradingbot.app import create_app
from tradingbot.core.database import Database
from tradingbot.core.redis import make_redis
from tradingbot.core.settings import Settings
from tradingbot.events.protocol import LARGEST_MESSAGE
from tradingbot.events.publisher import EventPublisher
from tradingbot.events.service import EventType, record
from tradingbot.users.models import User

PATIENCE = 60.0


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the tests' own


@asynccontextmanager
async def live_server(settings: Settings) -> AsyncIterator[int]:
    """Serves the application from this process on a real socket; gives its port."""
    port = free_port()
    config = uvicorn.Config(
        create_app(settings),
        host="127.0.0.1",
        port=port,
        ws="tradingbot.events.protocol:LiveProtocol",
        ws_max_size=LARGEST_MESSAGE,
        ws_ping_interval=settings.websocket_ping_interval,
        ws_ping_timeout=settings.websocket_ping_interval,
        lifespan="on",
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE):
            while not server.started:
                assert not task.done(), "the server ended"
                await asyncio.sleep(0.02)
        yield port
    finally:
        server.should_exit = True
        await task


def url(port: int, after: int | None = None) -> str:
    """Address of the WebSocket."""
    return f"ws://127.0.0.1:{port}/api/v1/ws" + ("" if after is None else f"?after={after}")


async def protocols(port: int, account: Account) -> list[Subprotocol]:
    """Gets a ticket, in the form that the WebSocket wants it in."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.post("/api/v1/ws/tickets", headers=account.headers)
    assert answer.status_code == 201, answer.text
    return [Subprotocol(protocol) for protocol in answer.json()["protocols"]]


class LiveClient(ClientConnection):
    """Keeps what comes while something else is waited for: events, and what was told of health last."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.health: dict[str, str] = {}
        self.unread: deque[dict[str, Any]] = deque()

    async def take(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.recv(), PATIENCE))
        if message["type"] in ("ready", "health"):
            self.health = message["data"]
        return message


async def connect_live(
    port: int, offered: list[Subprotocol], after: int | None = None, **options: Any
) -> LiveClient:
    """Connects with what `protocols` gave."""
    socket = await connect(url(port, after), subprotocols=offered, create_connection=LiveClient, **options)
    assert isinstance(socket, LiveClient)
    return socket


async def open_live(port: int, account: Account, after: int | None = None, **options: Any) -> LiveClient:
    """Connects with a new ticket."""
    return await connect_live(port, await protocols(port, account), after, **options)


async def listen(port: int, account: Account, after: int | None = None, **options: Any) -> LiveClient:
    """Connects, and takes the first message."""
    socket = await open_live(port, account, after, **options)
    ready = await receive(socket)
    assert ready["type"] == "ready"
    assert after is None or ready["sequence"] == after
    return socket


async def refusal(port: int, offered: list[Subprotocol], query: str = "") -> httpx.Response:
    """What a handshake is answered that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(port) + query, subprotocols=offered)
    answer = refused.value.response
    return httpx.Response(
        answer.status_code, headers=list(answer.headers.raw_items()), content=bytes(answer.body)
    )


async def receive(socket: LiveClient) -> dict[str, Any]:
    """The next message."""
    return socket.unread.popleft() if socket.unread else await socket.take()


async def events(socket: LiveClient, count: int) -> list[dict[str, Any]]:
    """The next numbered messages."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = await receive(socket)
        if message["type"] != "health":
            found.append(message)
    return found


async def health(socket: LiveClient, **expected: str) -> None:
    """Waits until this is what the client was told last."""
    async with asyncio.timeout(PATIENCE):
        while not expected.items() <= socket.health.items():
            message = await socket.take()
            if message["type"] == "health":
                assert "sequence" not in message
            else:
                socket.unread.append(message)


async def sequences(socket: LiveClient, count: int) -> list[int]:
    """The numbers of the next events."""
    return [event["sequence"] for event in await events(socket, count)]


async def close_code(socket: ClientConnection) -> int | None:
    """Waits for the end of the connection and tells its code."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE):
            while True:
                await socket.recv()
    return socket.close_code


async def user_id_of(database: Database, account: Account) -> UUID:
    """Whose account it is."""
    async with database.transaction() as session:
        return (await session.execute(select(User.id).where(User.email == account.email))).scalar_one()


async def record_events(database: Database, user_id: UUID, count: int, **data: Any) -> None:
    """Records so many events, each in a transaction of its own."""
    for number in range(count):
        async with database.transaction() as session:
            await record(session, user_id, EventType.ORDER, {"number": number, **data})


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
