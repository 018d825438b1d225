"""Queries on halts."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.risk.models import Halt
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User

_FARTHEST_FIRST = (
    Halt.user_id.is_not(None),
    Halt.strategy_id.is_not(None),
    Halt.created_at.desc(),
    Halt.id,
)


async def find_for(session: AsyncSession, user_id: UUID, strategy_id: UUID) -> Halt | None:
    """Gives the farthest reaching halt of everybody, of the user, or of the strategy."""
    concerns = or_(
        Halt.user_id.is_(None),
        and_(Halt.user_id == user_id, or_(Halt.strategy_id.is_(None), Halt.strategy_id == strategy_id)),
    )
    statement = select(Halt).where(concerns).order_by(*_FARTHEST_FIRST).limit(1)
    return (await session.execute(statement)).scalar_one_or_none()


async def list_for(session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None) -> Sequence[Halt]:
    """Gives the halt of everybody and those of the user after the cursor, the newest first."""
    statement = select(Halt).where(or_(Halt.user_id.is_(None), Halt.user_id == user_id))
    if after is not None:
        statement = statement.where(tuple_(Halt.created_at, Halt.id) < (after.at, after.id))
    statement = statement.order_by(Halt.created_at.desc(), Halt.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def list_all(session: AsyncSession) -> Sequence[tuple[Halt, str | None, str | None]]:
    """Gives all halts, with the address of their user and the name of their strategy."""
    statement = (
        select(Halt, User.email, Strategy.name)
        .outerjoin(User, User.id == Halt.user_id)
        .outerjoin(Strategy, Strategy.id == Halt.strategy_id)
        .order_by(*_FARTHEST_FIRST)
    )
    return (await session.execute(statement)).all()


async def insert(
    session: AsyncSession, user_id: UUID | None, strategy_id: UUID | None, reason: str | None, flatten: bool
) -> Halt | None:
    """Stores a halt; gives None if there is one of this reach."""
    values = {"user_id": user_id, "strategy_id": strategy_id, "reason": reason, "flatten": flatten}
    statement = insert_into(Halt).values(values).on_conflict_do_nothing().returning(Halt)
    return (await session.execute(statement)).scalar_one_or_none()


async def change(
    session: AsyncSession, user_id: UUID | None, strategy_id: UUID | None, reason: str | None, flatten: bool
) -> Halt | None:
    """Give the halt of this reach its new reason; what flattens goes on with it."""
    values = {"reason": reason, "flatten": Halt.flatten | flatten}
    statement = update(Halt).where(_reach(user_id, strategy_id)).values(values).returning(Halt)
    return (await session.execute(statement)).scalar_one_or_none()


async def remove(session: AsyncSession, user_id: UUID | None, strategy_id: UUID | None) -> Halt | None:
    """Deletes the halt of this reach, and gives it."""
    statement = delete(Halt).where(_reach(user_id, strategy_id)).returning(Halt)
    return (await session.execute(statement)).scalar_one_or_none()


async def owns_strategy(session: AsyncSession, user_id: UUID, strategy_id: UUID) -> bool:
    """Tells whether the strategy is the user's, and keeps it from being deleted until the commit."""
    statement = select(Strategy.id).where(Strategy.id == strategy_id, Strategy.user_id == user_id)
    statement = statement.with_for_update(read=True, key_share=True)
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def active_users(session: AsyncSession) -> Sequence[UUID]:
    """Gives the ids of all active users, in an order that is always the same: their events take locks."""
    statement = select(User.id).where(User.is_active).order_by(User.id)
    return (await session.execute(statement)).scalars().all()


def _reach(user_id: UUID | None, strategy_id: UUID | None) -> ColumnElement[bool]:
    return and_(
        Halt.user_id.is_not_distinct_from(user_id), Halt.strategy_id.is_not_distinct_from(strategy_id)
    )
