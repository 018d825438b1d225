"""Reading signals."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.signals import repository
from tradingbot.signals.schemas import SignalOut, SignalPage


async def list_page(session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None) -> SignalPage:
    """Gives one page of the user's own signals."""
    rows = await repository.list_of_user(session, user_id, limit + 1, after)
    items = [SignalOut.model_validate(row) for row in rows[:limit]]
    has_more = len(rows) > limit
    last = items[-1] if has_more else None
    return SignalPage(
        items=items, next_cursor=encode_cursor(Cursor(last.received_at, last.id)) if last else None
    )
