"""Getting out of everything: a halt with `flatten` cancels all orders in its reach and closes all positions.

The worker looks again and again for as long as the halt is on, so what turns out to be filled later, as an
order of unknown fate may, is closed too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID, uuid4

import structlog
from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.database import Database
from tradingbot.core.errors import ConflictError, NotFoundError
from tradingbot.core.symbols import market_in
from tradingbot.orders.models import FINAL_STATES, OPEN_STATES, Order, OrderState
from tradingbot.orders.service import request_cancel
from tradingbot.positions import closing
from tradingbot.positions.models import Position
from tradingbot.risk.halts import Target
from tradingbot.risk.models import Halt
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User

log = structlog.stdlib.get_logger("tradingbot.flatten")

# A close that ended without a trade is not made again before.
_PAUSE = 60.0
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Market:
    """What a strategy still has in a market: `held` (signed, in the base asset), and how many open orders."""

    user: str
    strategy: str
    symbol: str
    held: Decimal
    open_orders: int


async def flatten(database: Database) -> None:
    """Cancel and close what halts with `flatten` reach. What fails is tried again the next time.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    async with database.transaction() as session:
        orders = (await session.execute(_to_cancel())).all()
        positions = (await session.execute(_to_close())).all()
    for work, rows in ((_cancel, orders), (_close, positions)):
        for user_id, row_id in rows:
            try:
                async with database.transaction() as session:
                    await work(session, user_id, row_id)
            except Exception:
                # One that fails every time keeps no other from being closed.
                log.exception("an order or a position is passed over", id=str(row_id))


async def left(session: AsyncSession, target: Target) -> Sequence[Market]:
    """Return what is still held or open within the reach of a halt."""
    orders = (
        select(User.email, Strategy.name, market_in(Order.symbol), func.count())
        .join(Strategy, Strategy.id == Order.strategy_id)
        .join(User, User.id == Order.user_id)
        .where(Order.state.in_(OPEN_STATES), *_within(target, Order))
        .group_by(User.email, Strategy.name, market_in(Order.symbol))
    )
    positions = (
        select(User.email, Strategy.name, market_in(Position.symbol), Position.quantity)
        .join(Strategy, Strategy.id == Position.strategy_id)
        .join(User, User.id == Position.user_id)
        .where(~Position.is_flat, *_within(target, Position))
    )
    held = {row[:3]: row[3] for row in await session.execute(positions)}
    counts = {row[:3]: row[3] for row in await session.execute(orders)}
    return [
        Market(*market, held.get(market, _ZERO), counts.get(market, 0)) for market in sorted({*held, *counts})
    ]


def _within(target: Target, table: type[Order | Position]) -> list[ColumnElement[bool]]:
    wanted = [(table.user_id, target.user_id), (table.strategy_id, target.strategy_id)]
    return [column == value for column, value in wanted if value is not None]


def _is_flattened(table: type[Order | Position]) -> ColumnElement[bool]:
    return exists().where(
        Halt.flatten,
        or_(Halt.user_id.is_(None), Halt.user_id == table.user_id),
        or_(Halt.strategy_id.is_(None), Halt.strategy_id == table.strategy_id),
    )


def _to_cancel() -> Select[UUID, UUID]:
    """Orders that open something: those that close go on, or are overtaken by the close by hand."""
    return select(Order.user_id, Order.id).where(
        Order.state.in_(OPEN_STATES),
        ~Order.reduce_only,
        Order.cancel_requested_at.is_(None),
        _is_flattened(Order),
    )


def _to_close() -> Select[UUID, UUID]:
    recently = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, _PAUSE)
    in_vain = exists().where(
        Order.strategy_id == Position.strategy_id,
        market_in(Order.symbol) == market_in(Position.symbol),
        Order.signal_id.is_(None),
        Order.reduce_only,
        Order.state.in_(FINAL_STATES),
        Order.filled_quantity == 0,
        # Not one that was not sent, since nothing was left to close then.
        or_(Order.state == OrderState.REJECTED, Order.attempts > 0),
        Order.updated_at > recently,
    )
    return select(Position.user_id, Position.id).where(~Position.is_flat, _is_flattened(Position), ~in_vain)


async def _cancel(session: AsyncSession, user_id: UUID, order_id: UUID) -> None:
    try:
        await request_cancel(session, user_id, order_id)
    except (ConflictError, NotFoundError):
        # It is over by now.
        return


async def _close(session: AsyncSession, user_id: UUID, position_id: UUID) -> None:
    try:
        order = await closing.close(session, user_id, position_id, f"flatten {uuid4()}")
    except (ConflictError, NotFoundError):
        # It is closed, or being closed by hand, by now.
        return
    log.info("a position is closed, since its strategy is halted with flatten", order_id=str(order.id))
