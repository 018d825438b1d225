"""Queries on API keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.api_keys.models import ApiKey
from tradingbot.core.pagination import Cursor
from tradingbot.users.models import User


class KeyRef(NamedTuple):
    """A valid key: whose it is, and what it allows."""

    id: UUID
    user_id: UUID
    scopes: list[str]
    last_used_at: datetime | None


async def find_valid(session: AsyncSession, key_hash: str, now: datetime) -> KeyRef | None:
    """Gives the key with this hash, if it is valid and its user active."""
    statement = (
        select(ApiKey.id, ApiKey.user_id, ApiKey.scopes, ApiKey.last_used_at)
        .join(User, User.id == ApiKey.user_id)
        .where(ApiKey.key_hash == key_hash, ApiKey.revoked_at.is_(None), User.is_active)
        .where(or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))
    )
    row = (await session.execute(statement)).one_or_none()
    return KeyRef(*row) if row else None


async def touch(session: AsyncSession, key_id: UUID, now: datetime, older_than: datetime) -> None:
    """Notes that the key was used, if the note that is there is old; waits for nobody who just does so."""
    stale = (
        select(ApiKey.id)
        .where(ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= older_than))
        .with_for_update(skip_locked=True)
    )
    await session.execute(update(ApiKey).where(ApiKey.id.in_(stale)).values(last_used_at=now))


async def revoke(session: AsyncSession, user_id: UUID, key_id: UUID, now: datetime) -> bool:
    """Revokes one of the user's keys; tells whether there was one that had not been revoked."""
    statement = (
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(ApiKey.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def list_of_user(
    session: AsyncSession, user_id: UUID, limit: int | None = None, after: Cursor | None = None
) -> Sequence[ApiKey]:
    """Gives the user's keys after the cursor, the newest first, without the revoked ones."""
    statement = select(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    if after is not None:
        statement = statement.where(tuple_(ApiKey.created_at, ApiKey.id) < (after.at, after.id))
    statement = statement.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()
