"""Orders and fills for those who look at them."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.errors import NotFoundError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.orders import queries
from tradingbot.orders.queries import FillFilter, OrderFilter
from tradingbot.orders.schemas import FillOut, FillPage, OrderDetail, OrderOut, OrderPage


async def list_orders(
    session: AsyncSession, user_id: UUID, wanted: OrderFilter, limit: int, after: Cursor | None
) -> OrderPage:
    """Gives one page of the user's own orders."""
    rows = await queries.list_orders(session, user_id, wanted, limit + 1, after)
    items = [OrderOut.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return OrderPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


async def detail(session: AsyncSession, user_id: UUID, order_id: UUID) -> OrderDetail:
    """Gives one of the user's own orders with its fills.

    Raises:
        NotFoundError: the user has no such order.
    """
    order = await queries.find_order(session, user_id, order_id)
    if order is None:
        raise NotFoundError("You have no such order.")
    fills = [FillOut.model_validate(row) for row in await queries.fills_of_order(session, user_id, order_id)]
    return OrderDetail(**dict(OrderOut.model_validate(order)), fills=fills)


async def list_fills(
    session: AsyncSession, user_id: UUID, wanted: FillFilter, limit: int, after: Cursor | None
) -> FillPage:
    """Gives one page of the user's own fills."""
    rows = await queries.list_fills(session, user_id, wanted, limit + 1, after)
    items = [FillOut.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return FillPage(items=items, next_cursor=encode_cursor(Cursor(last.filled_at, last.id)) if last else None)
