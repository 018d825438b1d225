"""Reads a request's body, but never more of it than allowed."""

from http import HTTPStatus

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tradingbot.core.errors import TooLargeError

# Far more than any request of the API has to be.
LARGEST = 256 * 1024


async def read_body(request: Request, limit: int) -> bytes:
    """Reads at most `limit` bytes, whether or not the sender told the length.

    Raises:
        TooLargeError: the body is longer.
    """
    if _declared(request.headers) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


class BodyLimit:
    """Answers 413 to a body beyond `limit` bytes, at endpoints that have no smaller limit of their own."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left = self._limit

        async def bounded() -> Message:
            nonlocal left
            if left == self._limit and _declared(Headers(scope=scope)) > left:
                left = -1
            else:
                message = await receive()
                left -= len(message.get("body", b""))
            if left < 0:
                # FastAPI makes a 400 of every other error that comes up while it reads a body.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _told(self._limit))
            return message

        await self.app(scope, bounded, send)


def _declared(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(_told(limit))


def _told(limit: int) -> str:
    return f"The body is larger than {limit} bytes."
