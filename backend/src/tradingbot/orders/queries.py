"""Queries of those who look at orders and fills. A user sees only their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.core.symbols import in_market
from tradingbot.orders.models import Fill, Order, OrderState, Side
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User


@dataclass(frozen=True)
class OrderFilter:
    """Which orders to list; None or nothing is any. Made `since` then (in) `until` then (out)."""

    strategy_id: UUID | None = None
    symbol: str | None = None
    side: Side | None = None
    states: Sequence[OrderState] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class FillFilter:
    """Which fills to list; None is any. Filled `since` then (in) `until` then (out)."""

    strategy_id: UUID | None = None
    order_id: UUID | None = None
    symbol: str | None = None
    side: Side | None = None
    since: datetime | None = None
    until: datetime | None = None


async def list_orders(
    session: AsyncSession, user_id: UUID, wanted: OrderFilter, limit: int, after: Cursor | None
) -> Sequence[Order]:
    """Gives the user's orders after the cursor, the newest first."""
    statement = select(Order).where(Order.user_id == user_id)
    if wanted.strategy_id is not None:
        statement = statement.where(Order.strategy_id == wanted.strategy_id)
    if wanted.symbol is not None:
        statement = statement.where(in_market(Order.symbol, wanted.symbol))
    if wanted.side is not None:
        statement = statement.where(Order.side == wanted.side)
    if wanted.states:
        statement = statement.where(Order.state.in_(wanted.states))
    if wanted.since is not None:
        statement = statement.where(Order.created_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Order.created_at < wanted.until)
    if after is not None:
        statement = statement.where(tuple_(Order.created_at, Order.id) < (after.at, after.id))
    statement = statement.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def list_with_owners(
    session: AsyncSession, email: str | None, strategy: str | None, states: Sequence[OrderState], limit: int
) -> Sequence[tuple[Order, str, str]]:
    """Return orders in these states, the newest first, each with its user's address and its strategy's name.

    None is any user, and any strategy.
    """
    statement = (
        select(Order, User.email, Strategy.name)
        .join(User, User.id == Order.user_id)
        .join(Strategy, Strategy.id == Order.strategy_id)
        .where(Order.state.in_(states))
    )
    if email is not None:
        statement = statement.where(User.email == email)
    if strategy is not None:
        statement = statement.where(Strategy.name == strategy)
    statement = statement.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit)
    return [(row[0], row[1], row[2]) for row in await session.execute(statement)]


async def find_order(session: AsyncSession, user_id: UUID, order_id: UUID) -> Order | None:
    """Gives the user's order."""
    statement = select(Order).where(Order.user_id == user_id, Order.id == order_id)
    return (await session.execute(statement)).scalar_one_or_none()


async def fills_of_order(session: AsyncSession, user_id: UUID, order_id: UUID) -> Sequence[Fill]:
    """Gives the fills of the user's order, the oldest first."""
    statement = select(Fill).where(Fill.user_id == user_id, Fill.order_id == order_id)
    return (await session.execute(statement.order_by(Fill.filled_at, Fill.id))).scalars().all()


async def list_fills(
    session: AsyncSession, user_id: UUID, wanted: FillFilter, limit: int, after: Cursor | None
) -> Sequence[Fill]:
    """Gives the user's fills after the cursor, the newest first."""
    statement = select(Fill).where(Fill.user_id == user_id)
    if wanted.strategy_id is not None:
        statement = statement.where(Fill.strategy_id == wanted.strategy_id)
    if wanted.order_id is not None:
        statement = statement.where(Fill.order_id == wanted.order_id)
    if wanted.symbol is not None:
        statement = statement.where(in_market(Fill.symbol, wanted.symbol))
    if wanted.side is not None:
        statement = statement.where(Fill.side == wanted.side)
    if wanted.since is not None:
        statement = statement.where(Fill.filled_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Fill.filled_at < wanted.until)
    if after is not None:
        statement = statement.where(tuple_(Fill.filled_at, Fill.id) < (after.at, after.id))
    statement = statement.order_by(Fill.filled_at.desc(), Fill.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()
