"""Uvicorn's WebSocket protocol, but closing a connection waits for no client, and refusing one is no error.

As it is, `websocket.close` waits until the client takes data again, and a transport that is closed keeps what
it could not send, and the connection, for as long as the client likes.
"""

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_PATIENCE = 5.0
_PATIENCE_AT_SHUTDOWN = 1.0


class LiveProtocol(WebSocketsSansIOProtocol):
    """Writes the close frame behind what is unsent and, some seconds later, drops both."""

    def shutdown(self) -> None:
        """Closes with 1012; called when the server stops."""
        super().shutdown()
        self.loop.call_later(_PATIENCE_AT_SHUTDOWN, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Closes with 1011; called when a ping is not answered."""
        super().keepalive_timeout()
        self.transport.abort()

    async def send(self, message: ASGISendEvent) -> None:
        """Takes what the application sends."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self.loop.call_later(_PATIENCE, self.transport.abort)
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # A refusal is an answer; without this it is logged as the lack of one.
            self.handshake_complete = True
