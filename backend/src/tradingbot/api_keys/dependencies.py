"""Endpoints that need an API key depend on these."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader
from starlette.requests import HTTPConnection

from tradingbot.api_keys import service
from tradingbot.core.context import Context, ContextDep

HEADER = "X-API-Key"
_header = APIKeyHeader(name=HEADER, auto_error=False, description="Made by `tradingbot api-key create`.")


async def owner_of_key(context: Context, connection: HTTPConnection) -> UUID:
    """Gives the user whose key is in the header of a request or of a WebSocket handshake.

    Raises:
        UnauthorizedError: there is no valid key.
    """
    key = connection.headers.get(HEADER)
    if not key:
        raise service.unauthorized()
    async with context.database.transaction() as session:
        return await service.authenticate(session, key, context.settings.secret_key.get_secret_value())


async def current_user_id(
    context: ContextDep, connection: HTTPConnection, _key: Annotated[str | None, Security(_header)]
) -> UUID:
    """Gives the user whose key came with the request."""
    return await owner_of_key(context, connection)


CurrentUserId = Annotated[UUID, Depends(current_user_id)]
