"""Endpoints say with these who may call them."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.requests import HTTPConnection

from tradingbot.api_keys import service as api_keys
from tradingbot.auth import access_tokens, repository
from tradingbot.auth.principal import Principal, Scope
from tradingbot.auth.service import unauthorized
from tradingbot.core.context import Context, ContextDep
from tradingbot.core.errors import ForbiddenError
from tradingbot.core.models import utc_now

# These two only describe in the OpenAPI document what `authenticate` reads.
_bearer = HTTPBearer(
    scheme_name="session", bearerFormat="JWT", auto_error=False, description="Access token of a session."
)
_api_key = APIKeyHeader(
    name=api_keys.HEADER, scheme_name="apiKey", auto_error=False, description="An API key."
)
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
_ApiKey = Annotated[str | None, Security(_api_key)]
_ALL_SCOPES = frozenset(Scope)


async def authenticate(context: Context, connection: HTTPConnection) -> Principal:
    """Gives who sent the request, by `Authorization: Bearer …` or else by `X-API-Key`: one query.

    Raises:
        UnauthorizedError: nobody that we know.
        UnavailableError: the database does not answer.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await _signed_in(context, token.strip())
    key = connection.headers.get(api_keys.HEADER)
    if key:
        return await _key_holder(context, key)
    raise unauthorized("Sign in and send the access token, or send an API key in the header X-API-Key.")


async def _signed_in(context: Context, token: str) -> Principal:
    claims = access_tokens.read(context.settings, token)
    if claims is not None:
        async with context.database.single() as session:
            is_admin = await repository.is_admin(session, claims.session_id, claims.user_id, utc_now())
        if is_admin is not None:
            return Principal(claims.user_id, _ALL_SCOPES, claims.session_id, is_admin)
    raise unauthorized("The access token is not valid, or its session is over.")


async def _key_holder(context: Context, key: str) -> Principal:
    principal = await api_keys.authenticate(
        context.database, key, context.settings.secret_key.get_secret_value()
    )
    if principal is None:
        raise unauthorized("The API key is not valid, or not any more.")
    return principal


def _with_scope(scope: Scope) -> Callable[..., Awaitable[Principal]]:
    async def dependency(
        context: ContextDep, connection: HTTPConnection, _token: _Bearer, _key: _ApiKey
    ) -> Principal:
        principal = await authenticate(context, connection)
        if scope not in principal.scopes:
            raise ForbiddenError(f"The API key lacks the scope {scope}.")
        return principal

    return dependency


async def _account(context: ContextDep, connection: HTTPConnection, _token: _Bearer) -> Principal:
    principal = await authenticate(context, connection)
    if principal.session_id is None:
        raise ForbiddenError("This needs a signed-in session: no API key has the scope for it.")
    return principal


async def _admin(account: Annotated[Principal, Depends(_account)]) -> Principal:
    if not account.is_admin:
        raise ForbiddenError("This needs an administrator.")
    return account


Reader = Annotated[Principal, Depends(_with_scope(Scope.READ))]
Trader = Annotated[Principal, Depends(_with_scope(Scope.TRADE))]
# Signed in, not with an API key: a key that leaked must not make others or change what can be stolen.
Account = Annotated[Principal, Depends(_account)]
Admin = Annotated[Principal, Depends(_admin)]
