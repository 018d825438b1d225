"""Endpoints under /api-keys: for signed-in sessions only."""

from uuid import UUID

from fastapi import APIRouter, Response

from tradingbot.api_keys import service
from tradingbot.api_keys.schemas import ApiKeyIn, ApiKeyOut, ApiKeyPage, NewApiKeyOut
from tradingbot.auth.dependencies import Account
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit

router = APIRouter(prefix="/api-keys", tags=["api keys"])


@router.post("", status_code=201, responses=documented(401, 403, 422, 503))
async def create_api_key(
    body: ApiKeyIn, context: ContextDep, account: Account, response: Response
) -> NewApiKeyOut:
    """Makes an API key. It is in this answer and cannot be shown again."""
    secret_key = context.settings.secret_key.get_secret_value()
    async with context.database.transaction() as session:
        row, key = await service.create(
            session, account.user_id, body.name, secret_key, body.scopes, body.expires_in_days
        )
    response.headers["Cache-Control"] = "no-store"
    return NewApiKeyOut(key=key, **ApiKeyOut.model_validate(row).model_dump())


@router.get("", responses=documented(401, 403, 422, 503))
async def list_api_keys(
    context: ContextDep,
    account: Account,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> ApiKeyPage:
    """Lists your API keys, the newest first, without those that are revoked."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.single() as session:
        return await service.list_page(session, account.user_id, limit, after)


@router.delete("/{key_id}", status_code=204, responses=documented(401, 403, 404, 422, 503))
async def revoke_api_key(key_id: UUID, context: ContextDep, account: Account) -> None:
    """Revokes an API key: it is refused at once."""
    async with context.database.transaction() as session:
        await service.revoke(session, account.user_id, key_id)
