"""Reads a request's body, but never more of it than allowed."""

from fastapi import Request

from tradingbot.core.errors import TooLargeError


async def read_body(request: Request, limit: int) -> bytes:
    """Reads at most `limit` bytes, whether or not the sender told the length.

    Raises:
        TooLargeError: the body is longer.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The body is larger than {limit} bytes.")
