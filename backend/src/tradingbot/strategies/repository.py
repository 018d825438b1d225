"""Queries on strategies."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User


class StrategyRef(NamedTuple):
    """A strategy and its owner."""

    id: UUID
    user_id: UUID


async def find_by_token_hash(session: AsyncSession, token_hash: str) -> StrategyRef | None:
    """Gives the active strategy of an active user with this webhook token."""
    statement = (
        select(Strategy.id, Strategy.user_id)
        .join(User, User.id == Strategy.user_id)
        .where(Strategy.webhook_token_hash == token_hash, Strategy.is_active, User.is_active)
    )
    row = (await session.execute(statement)).one_or_none()
    return StrategyRef(row.id, row.user_id) if row else None


async def exists(session: AsyncSession, user_id: UUID, name: str) -> bool:
    """Tells whether the user has a strategy of this name."""
    statement = select(Strategy.id).where(Strategy.user_id == user_id, Strategy.name == name)
    return (await session.execute(statement)).first() is not None
