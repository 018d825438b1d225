"""What happens around every request: its id, its log line, and a calm answer when the code fails."""

import re
import time
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tradingbot.core.metrics import observe_request, route_of
from tradingbot.core.problems import problem_response

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._\-]{8,64}$")
_QUIET_PREFIXES = ("/api/v1/health", "/metrics")

log = structlog.stdlib.get_logger("tradingbot.http")


class RequestMiddleware:
    """Gives each request an id, logs and counts it, and catches what nobody did.

    The id is the proxy's X-Request-ID, if that is a sane one. Requests that take `slow` seconds or longer are
    logged as warnings.

    Nothing of an unexpected error but the request's id reaches the client.
    """

    def __init__(self, app: ASGIApp, slow: float) -> None:
        self.app = app
        self._slow = slow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:  # the last line of defence: anything else has been handled further in
            log.exception("request failed", method=scope.get("method"), path=scope["path"])
            if scope["type"] == "http" and not status:
                detail = "Something went wrong here. Quote the request_id when you report it."
                await problem_response(500, detail)(scope, receive, send_with_id)
        finally:
            if scope["type"] == "http":
                self._account_for(scope, status, time.perf_counter() - started)

    def _account_for(self, scope: Scope, status: int, seconds: float) -> None:
        observe_request(route_of(scope), scope["method"], status, seconds)
        fields = {"method": scope["method"], "path": scope["path"], "status": status}
        if seconds >= self._slow:
            log.warning("slow request", **fields, ms=round(seconds * 1000, 1))
        elif not scope["path"].startswith(_QUIET_PREFIXES):
            log.info("request", **fields, ms=round(seconds * 1000, 1))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _REQUEST_ID.match(given) else uuid4().hex
    return uuid4().hex
