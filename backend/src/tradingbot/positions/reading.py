"""Positions and profit and loss for those who look at them."""

from decimal import Decimal, localcontext
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.core.errors import NotFoundError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.positions import holdings, queries
from tradingbot.positions.queries import PositionFilter
from tradingbot.positions.schemas import (
    Difference,
    DifferencePage,
    Performance,
    PositionOut,
    PositionPage,
    SummaryPage,
)

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


async def differences(
    session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None
) -> DifferencePage:
    """Return one page of where the user's accounts hold something else than what is booked."""
    rows = await holdings.differing(session, user_id, limit + 1, after)
    items = [Difference.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return DifferencePage(
        items=items, next_cursor=encode_cursor(Cursor(last.differs_since, last.id)) if last else None
    )


async def summary(
    session: AsyncSession, user_id: UUID, strategy_id: UUID | None, limit: int, after: Cursor | None
) -> SummaryPage:
    """Adds up the profit and loss of a page of the user's strategies that have traded, or of one of them."""
    places = await queries.traded_strategies(session, user_id, strategy_id, limit + 1, after)
    by_strategy: dict[UUID, list[PositionOut]] = {place.id: [] for place in places[:limit]}
    for row in await queries.of_strategies(session, user_id, by_strategy):
        by_strategy[row.strategy_id].append(PositionOut.of(row))
    return SummaryPage(
        items=[_performance(key, positions) for key, positions in by_strategy.items()],
        next_cursor=encode_cursor(places[limit - 1]) if len(places) > limit else None,
    )


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
