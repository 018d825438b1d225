"""Endpoints say with these who may call them."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader
from starlette.requests import HTTPConnection

from tradingbot.api_keys import service as api_keys
from tradingbot.auth.principal import Principal, Scope
from tradingbot.core.context import Context, ContextDep
from tradingbot.core.errors import ForbiddenError

_api_key = APIKeyHeader(name=api_keys.HEADER, auto_error=False, description="An API key.")


async def authenticate(context: Context, connection: HTTPConnection) -> Principal:
    """Gives who sent the request.

    Raises:
        UnauthorizedError: nobody that we know.
    """
    key = connection.headers.get(api_keys.HEADER)
    if not key:
        raise api_keys.unauthorized()
    async with context.database.transaction() as session:
        user_id = await api_keys.authenticate(session, key, context.settings.secret_key.get_secret_value())
    return Principal(user_id, frozenset(Scope))


def _with_scope(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    async def dependency(
        context: ContextDep, connection: HTTPConnection, _key: Annotated[str | None, Security(_api_key)]
    ) -> Principal:
        principal = await authenticate(context, connection)
        if scope not in principal.scopes:
            raise ForbiddenError(f"The API key lacks the scope {scope}.")
        return principal

    return dependency


Reader = Annotated[Principal, Depends(_with_scope(Scope.READ))]
Trader = Annotated[Principal, Depends(_with_scope(Scope.TRADE))]
