"""Making API keys, finding whose they are, and revoking them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.api_keys import repository
from tradingbot.api_keys.models import ApiKey
from tradingbot.api_keys.schemas import ApiKeyOut, ApiKeyPage
from tradingbot.auth.principal import Principal, Scope
from tradingbot.core.database import Database
from tradingbot.core.errors import NotFoundError, UnavailableError
from tradingbot.core.models import utc_now
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.core.tokens import DISPLAY_LENGTH, TokenKind, hash_token, is_well_formed, new_token

HEADER = "X-API-Key"
LAST_USED_PRECISION = timedelta(minutes=1)


async def create(
    session: AsyncSession,
    user_id: UUID,
    name: str,
    secret_key: str,
    scopes: Iterable[Scope] = Scope,
    expires_in_days: int | None = None,
) -> tuple[ApiKey, str]:
    """Stores a new key of the user; the key itself is given back here and never again."""
    key = new_token(TokenKind.API_KEY)
    now = utc_now()
    row = ApiKey(
        user_id=user_id,
        name=name,
        prefix=key[:DISPLAY_LENGTH],
        key_hash=hash_token(key, secret_key),
        scopes=sorted(scopes),
        created_at=now,
        expires_at=now + timedelta(days=expires_in_days) if expires_in_days is not None else None,
    )
    session.add(row)
    await session.flush()
    return row, key


async def authenticate(database: Database, key: str, secret_key: str) -> Principal | None:
    """Gives who may ask with `key`; None if it is not one of ours, expired, or revoked.

    One query; once in `LAST_USED_PRECISION` a second one notes that the key is in use.

    Raises:
        UnavailableError: the database does not answer.
    """
    if not is_well_formed(key, TokenKind.API_KEY):
        return None
    now = utc_now()
    async with database.single() as session:
        found = await repository.find_valid(session, hash_token(key, secret_key), now)
    if found is None:
        return None
    if found.last_used_at is None or found.last_used_at <= now - LAST_USED_PRECISION:
        await _note_use(database, found.id, now)
    return Principal(found.user_id, frozenset(map(Scope, found.scopes)), api_key_id=found.id)


async def list_page(session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None) -> ApiKeyPage:
    """Gives one page of the user's keys."""
    rows = await repository.list_of_user(session, user_id, limit + 1, after)
    items = [ApiKeyOut.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return ApiKeyPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


async def revoke(session: AsyncSession, user_id: UUID, key_id: UUID) -> None:
    """Revokes one of the user's keys.

    Raises:
        NotFoundError: the user has no such key, or it is revoked already.
    """
    if not await repository.revoke(session, user_id, key_id, utc_now()):
        raise NotFoundError("There is no such API key.")


async def _note_use(database: Database, key_id: UUID, now: datetime) -> None:
    try:
        async with database.single() as session:
            await repository.touch(session, key_id, now, now - LAST_USED_PRECISION)
    except UnavailableError:
        # A database that can only be read lets read.
        return
