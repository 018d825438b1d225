"""Queries on API keys."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.api_keys.models import ApiKey
from tradingbot.users.models import User


async def find_owner(session: AsyncSession, key_hash: str, now: datetime) -> UUID | None:
    """Gives the active user whose valid key has this hash."""
    statement = (
        select(ApiKey.user_id)
        .join(User, User.id == ApiKey.user_id)
        .where(ApiKey.key_hash == key_hash, ApiKey.revoked_at.is_(None), User.is_active)
        .where(or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))
    )
    return (await session.execute(statement)).scalar_one_or_none()
