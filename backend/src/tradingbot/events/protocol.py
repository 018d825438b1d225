"""Uvicorn's WebSocket protocol, but closing a connection waits for no client, and is no error of ours.

As it is, `websocket.close` waits until the client takes data again, and a transport that is closed keeps what
it could not send, and the connection, for as long as the client likes. And the end of the server fails at a
client that is about to close, and sends all clients away in one moment.
"""

import asyncio
import random
from typing import ClassVar

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

# Bytes that a client may send in one message. None of them is looked at.
LARGEST_MESSAGE = 64 * 1024
_PATIENCE = 5.0
_PATIENCE_AT_SHUTDOWN = 1.0
# Seconds over which the end of the server spreads its closes. A client comes back at once, for a ticket, a
# TLS connection and what it has missed: all together are more than a small host does beside its requests.
_SPREAD_AT_SHUTDOWN = 4.0
_random = random.SystemRandom()


class LiveProtocol(WebSocketsSansIOProtocol):
    """Writes the close frame behind what is unsent and, some seconds later, drops both."""

    _open: ClassVar[set["LiveProtocol"]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when a request to upgrade has come."""
        super().connection_made(transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection has ended."""
        super().connection_lost(exc)
        self._open.discard(self)

    @classmethod
    def reconnect_all(cls) -> None:
        """Has the clients of this process reconnect; called when the web server before it is replaced."""
        for connection in cls._open:
            if connection.handshake_complete:
                connection.shutdown()

    def shutdown(self) -> None:
        """Closes with 1012, soon; called when the server stops, which waits for it."""
        self.loop.call_later(_random.uniform(0, _SPREAD_AT_SHUTDOWN), self._send_away)

    def _send_away(self) -> None:
        if self not in self._open:
            return
        try:
            super().shutdown()
        except InvalidState:
            self.transport.close()
        self.loop.call_later(_PATIENCE_AT_SHUTDOWN, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Closes with 1011; called when a ping is not answered."""
        super().keepalive_timeout()
        self.transport.abort()

    def handle_close(self, event: Frame) -> None:
        """Answers the close frame of a client that may not read the answer."""
        super().handle_close(event)
        self.loop.call_later(_PATIENCE, self.transport.abort)

    def handle_parser_exception(self) -> None:
        """Closes with a code that says what is wrong with what the client sent."""
        super().handle_parser_exception()
        self.loop.call_later(_PATIENCE, self.transport.abort)

    async def send(self, message: ASGISendEvent) -> None:
        """Takes what the application sends."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self.loop.call_later(_PATIENCE, self.transport.abort)
        elif message["type"] == "websocket.send":
            await self.writable.wait()
            if self.close_sent:
                # The protocol has closed by itself, and the application is about to learn of it.
                raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # A refusal is an answer; without this it is logged as the lack of one.
            self.handshake_complete = True
