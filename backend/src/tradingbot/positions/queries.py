"""Queries of those who look at positions. A user sees only their own."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, exists, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.core.symbols import in_market, market_in
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.positions.schemas import Direction
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User


@dataclass(frozen=True)
class PositionFilter:
    """Which positions to list; None is any. Last changed `since` then (in) `until` then (out)."""

    strategy_id: UUID | None = None
    symbol: str | None = None
    direction: Direction | None = None
    since: datetime | None = None
    until: datetime | None = None


_DIRECTIONS = {
    Direction.LONG: ~Position.is_flat & (Position.quantity > 0),
    Direction.SHORT: ~Position.is_flat & (Position.quantity < 0),
    Direction.FLAT: Position.is_flat,
}


async def list_of_user(
    session: AsyncSession, user_id: UUID, wanted: PositionFilter, limit: int, after: Cursor | None
) -> Sequence[Position]:
    """Gives the user's positions after the cursor, the last changed first."""
    statement = select(Position).where(Position.user_id == user_id)
    if wanted.strategy_id is not None:
        statement = statement.where(Position.strategy_id == wanted.strategy_id)
    if wanted.symbol is not None:
        statement = statement.where(in_market(Position.symbol, wanted.symbol))
    if wanted.direction is not None:
        statement = statement.where(_DIRECTIONS[wanted.direction])
    if wanted.since is not None:
        statement = statement.where(Position.updated_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Position.updated_at < wanted.until)
    if after is not None:
        statement = statement.where(tuple_(Position.updated_at, Position.id) < (after.at, after.id))
    statement = statement.order_by(Position.updated_at.desc(), Position.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def list_with_owners(
    session: AsyncSession, email: str | None, strategy: str | None
) -> Sequence[tuple[Position, str, str, AccountHolding | None]]:
    """Return positions that are held, or of a market where an account differs from the book.

    Each with its user's address, its strategy's name, and what the account was last seen to hold there. None
    is any user, and any strategy.
    """
    in_account = and_(
        AccountHolding.exchange_account_id == Strategy.exchange_account_id,
        AccountHolding.market == market_in(Position.symbol),
    )
    statement = (
        select(Position, User.email, Strategy.name, AccountHolding)
        .join(User, User.id == Position.user_id)
        .join(Strategy, Strategy.id == Position.strategy_id)
        .outerjoin(AccountHolding, in_account)
        .where(or_(Position.quantity != 0, AccountHolding.differs_since.is_not(None)))
    )
    if email is not None:
        statement = statement.where(User.email == email)
    if strategy is not None:
        statement = statement.where(Strategy.name == strategy)
    statement = statement.order_by(User.email, Strategy.name, Position.symbol)
    return [(row[0], row[1], row[2], row[3]) for row in await session.execute(statement)]


async def traded_strategies(
    session: AsyncSession, user_id: UUID, strategy_id: UUID | None, limit: int, after: Cursor | None
) -> Sequence[Cursor]:
    """Gives the places of the user's strategies that have traded, after the cursor, the newest first."""
    has_traded = exists().where(Position.strategy_id == Strategy.id)
    statement = select(Strategy.created_at, Strategy.id).where(Strategy.user_id == user_id, has_traded)
    if strategy_id is not None:
        statement = statement.where(Strategy.id == strategy_id)
    if after is not None:
        statement = statement.where(tuple_(Strategy.created_at, Strategy.id) < (after.at, after.id))
    statement = statement.order_by(Strategy.created_at.desc(), Strategy.id.desc()).limit(limit)
    return [Cursor(*row) for row in await session.execute(statement)]


async def of_strategies(
    session: AsyncSession, user_id: UUID, strategy_ids: Collection[UUID]
) -> Sequence[Position]:
    """Gives all positions of these strategies of the user."""
    statement = select(Position).where(Position.user_id == user_id, Position.strategy_id.in_(strategy_ids))
    return (await session.execute(statement)).scalars().all()


async def find(
    session: AsyncSession, user_id: UUID | None, position_id: UUID, *, lock: bool = False
) -> Position | None:
    """Return the user's position (None: anybody's); with `lock` nobody else changes it in the meantime."""
    statement = select(Position).where(Position.id == position_id)
    if user_id is not None:
        statement = statement.where(Position.user_id == user_id)
    if lock:
        statement = statement.with_for_update()
    return (await session.execute(statement)).scalar_one_or_none()


async def strategy_of(session: AsyncSession, position: Position) -> Strategy:
    """Gives the strategy that holds the position."""
    statement = select(Strategy).where(
        Strategy.id == position.strategy_id, Strategy.user_id == position.user_id
    )
    return (await session.execute(statement)).scalar_one()
