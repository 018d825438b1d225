"""Positions and profit and loss for those who look at them."""

from decimal import Decimal, localcontext
from itertools import groupby
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.core.errors import NotFoundError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.positions import queries
from tradingbot.positions.queries import PositionFilter
from tradingbot.positions.schemas import Performance, PositionOut, PositionPage, Summary

_ZERO = Decimal(0)


async def list_page(
    session: AsyncSession, user_id: UUID, wanted: PositionFilter, limit: int, after: Cursor | None
) -> PositionPage:
    """Gives one page of the user's own positions."""
    rows = await queries.list_of_user(session, user_id, wanted, limit + 1, after)
    items = [PositionOut.of(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return PositionPage(
        items=items, next_cursor=encode_cursor(Cursor(last.updated_at, last.id)) if last else None
    )


async def one(session: AsyncSession, user_id: UUID, position_id: UUID) -> PositionOut:
    """Gives one of the user's own positions.

    Raises:
        NotFoundError: the user has no such position.
    """
    position = await queries.find(session, user_id, position_id)
    if position is None:
        raise NotFoundError("You have no such position.")
    return PositionOut.of(position)


async def summary(session: AsyncSession, user_id: UUID, strategy_id: UUID | None) -> Summary:
    """Adds up the profit and loss of the user's strategies that have traded, or of one of them."""
    positions = [PositionOut.of(row) for row in await queries.all_of_user(session, user_id, strategy_id)]
    by_strategy = groupby(positions, key=lambda position: position.strategy_id)
    return Summary(items=[_performance(key, list(group)) for key, group in by_strategy])


def _performance(strategy_id: UUID, positions: list[PositionOut]) -> Performance:
    with localcontext(ARITHMETIC):
        realised = sum((position.realised_pnl for position in positions), start=_ZERO)
        unrealised = sum((position.unrealised_pnl for position in positions), start=_ZERO)
        fees = sum((position.fees for position in positions), start=_ZERO)
        return Performance(
            strategy_id=strategy_id,
            realised_pnl=realised,
            unrealised_pnl=unrealised,
            fees=fees,
            net_pnl=realised + unrealised - fees,
        )
