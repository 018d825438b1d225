"""Reading signals."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.errors import NotFoundError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.signals import repository
from tradingbot.signals.repository import SignalFilter
from tradingbot.signals.schemas import (
    SignalDetail,
    SignalOrder,
    SignalOut,
    SignalPage,
    SignalPrediction,
    SignalRefusal,
)


async def list_page(
    session: AsyncSession, user_id: UUID, wanted: SignalFilter, limit: int, after: Cursor | None
) -> SignalPage:
    """Gives one page of the user's own signals."""
    rows = await repository.list_of_user(session, user_id, wanted, limit + 1, after)
    items = [SignalOut.model_validate(row) for row in rows[:limit]]
    has_more = len(rows) > limit
    last = items[-1] if has_more else None
    return SignalPage(
        items=items, next_cursor=encode_cursor(Cursor(last.received_at, last.id)) if last else None
    )


async def detail(session: AsyncSession, user_id: UUID, signal_id: UUID) -> SignalDetail:
    """Gives one of the user's own signals with what came of it.

    Raises:
        NotFoundError: the user has no such signal.
    """
    found = await repository.outcome_of_user(session, user_id, signal_id)
    if found is None:
        raise NotFoundError("You have no such signal.")
    return SignalDetail(
        **SignalOut.model_validate(found.signal).model_dump(),
        order=SignalOrder.model_validate(found.order) if found.order else None,
        refusal=SignalRefusal.model_validate(found.refusal) if found.refusal else None,
        prediction=SignalPrediction.model_validate(found.prediction) if found.prediction else None,
    )
