"""Queries on signals."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.signals.models import DEDUP_CONSTRAINT, Signal


async def insert_once(session: AsyncSession, values: dict[str, Any]) -> UUID | None:
    """Stores a signal; gives None if the strategy has one with this `dedup_key`."""
    statement = insert(Signal).values(values).on_conflict_do_nothing(constraint=DEDUP_CONSTRAINT)
    return (await session.execute(statement.returning(Signal.id))).scalar_one_or_none()


async def lock_key(session: AsyncSession, strategy_id: UUID, key: str) -> None:
    """Lets one transaction at a time work on this key of this strategy."""
    await session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"{strategy_id}:{key}", 0)))
    )


async def find_by_key(
    session: AsyncSession, strategy_id: UUID, keys: Sequence[str], since: datetime | None = None
) -> UUID | None:
    """Gives the strategy's latest signal with one of these keys, received after `since`."""
    statement = select(Signal.id).where(Signal.strategy_id == strategy_id, Signal.dedup_key.in_(keys))
    if since is not None:
        statement = statement.where(Signal.received_at > since)
    return (
        await session.execute(statement.order_by(Signal.received_at.desc()).limit(1))
    ).scalar_one_or_none()


async def list_of_user(
    session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None
) -> Sequence[Signal]:
    """Gives the user's signals after the cursor, the newest first."""
    statement = select(Signal).where(Signal.user_id == user_id)
    if after is not None:
        statement = statement.where(tuple_(Signal.received_at, Signal.id) < (after.at, after.id))
    statement = statement.order_by(Signal.received_at.desc(), Signal.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()
