"""Queries on positions, and on what a fill changes."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.symbols import in_market
from tradingbot.orders.models import OPEN_LITERALLY, Fill, Order, Side
from tradingbot.positions.models import Position, PriceSource


async def lock_order(session: AsyncSession, order_id: UUID) -> Order:
    """Gives the order as it is stored, locked until the transaction ends."""
    await session.flush()
    statement = select(Order).where(Order.id == order_id).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one()


async def has_fill(session: AsyncSession, order_id: UUID, trade_id: str) -> bool:
    """Tells whether this trade is booked; final under the order's lock."""
    statement = select(Fill.id).where(Fill.order_id == order_id, Fill.exchange_trade_id == trade_id)
    return (await session.execute(statement)).first() is not None


async def insert_fill(session: AsyncSession, values: dict[str, Any]) -> Fill:
    """Stores a fill."""
    return (await session.execute(insert(Fill).values(values).returning(Fill))).scalar_one()


async def lock_position(session: AsyncSession, user_id: UUID, strategy_id: UUID, symbol: str) -> Position:
    """Return the strategy's position in the market, made if there was none, locked until the end.

    A new one is spelled like `symbol`."""
    values = {"user_id": user_id, "strategy_id": strategy_id, "symbol": symbol}
    await session.execute(insert(Position).values(values).on_conflict_do_nothing())
    statement = select(Position).where(
        Position.strategy_id == strategy_id, in_market(Position.symbol, symbol)
    )
    statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalar_one()


async def mark(session: AsyncSession, strategy_id: UUID, symbol: str, price: Decimal, at: datetime) -> None:
    """Notes a newer price of the symbol.

    A position that is being changed is left alone: whoever changes it knows a price too, and waiting here for
    a lock while holding others could end in a deadlock.
    """
    free = (
        select(Position.id)
        .where(
            Position.strategy_id == strategy_id,
            in_market(Position.symbol, symbol),
            Position.last_price_at < at,
        )
        .with_for_update(skip_locked=True)
    )
    await session.execute(
        update(Position)
        .where(Position.id.in_(free))
        .values(last_price=price, last_price_at=at, last_price_source=PriceSource.SIGNAL)
    )


async def note_min_quantity(
    session: AsyncSession, strategy_id: UUID, symbol: str, min_quantity: Decimal
) -> None:
    """Note the least quantity that the market takes of an exit."""
    await session.execute(
        update(Position)
        .where(
            Position.strategy_id == strategy_id,
            in_market(Position.symbol, symbol),
            Position.min_quantity != min_quantity,
        )
        .values(min_quantity=min_quantity)
    )


async def list_open(session: AsyncSession, strategy_id: UUID) -> Sequence[Position]:
    """Gives what the strategy holds."""
    statement = select(Position).where(Position.strategy_id == strategy_id, Position.quantity != 0)
    return (await session.execute(statement)).scalars().all()


async def held_quantity(session: AsyncSession, strategy_id: UUID, symbol: str) -> Decimal:
    """Gives the signed quantity that the strategy holds of the symbol, locked until the transaction ends."""
    statement = select(Position.quantity).where(
        Position.strategy_id == strategy_id, in_market(Position.symbol, symbol)
    )
    return (await session.execute(statement.with_for_update())).scalar_one_or_none() or Decimal(0)


async def find(session: AsyncSession, strategy_id: UUID, symbol: str) -> Position | None:
    """Return the strategy's position in the market of the symbol."""
    statement = select(Position).where(
        Position.strategy_id == strategy_id, in_market(Position.symbol, symbol)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def pending_of_side(session: AsyncSession, strategy_id: UUID, symbol: str, side: Side) -> Decimal:
    """Gives what the strategy's open orders of this side may still fill of the symbol."""
    left = func.greatest(Order.quantity - Order.filled_quantity, Decimal(0))
    statement = select(func.sum(left)).where(
        Order.strategy_id == strategy_id,
        in_market(Order.symbol, symbol),
        Order.side == side,
        Order.state.in_(OPEN_LITERALLY),
    )
    return (await session.execute(statement)).scalar_one() or Decimal(0)
