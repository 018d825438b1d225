"""Routes without dependency injection, for the few endpoints that are called so often that it would count."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class DirectRoute(APIRoute):
    """Calls the endpoint with the request, and sends the response that it returns."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive))
            await response(scope, receive, send)

        self.app = app


class DirectEndpoint(NamedTuple):
    """An endpoint, its path below the API's prefix, and what FastAPI's `add_api_route` wants to know."""

    path: str
    call: Callable[[Request], Awaitable[Response]]
    options: dict[str, Any]


def add_direct_routes(router: APIRouter, prefix: str, endpoints: list[DirectEndpoint]) -> None:
    """Adds the endpoints to the outermost router itself. Before all others, they are found at once."""
    for endpoint in endpoints:
        router.add_api_route(
            prefix + endpoint.path, endpoint.call, route_class_override=DirectRoute, **endpoint.options
        )
