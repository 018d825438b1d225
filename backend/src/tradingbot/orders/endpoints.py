"""Endpoints under /orders and /fills."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from tradingbot.auth.dependencies import Reader, Trader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit, Since, SymbolFilter, Until
from tradingbot.orders import reading, service
from tradingbot.orders.models import OrderState, Side
from tradingbot.orders.queries import FillFilter, OrderFilter
from tradingbot.orders.schemas import FillPage, OrderDetail, OrderOut, OrderPage, SettlementIn
from tradingbot.orders.settling import Settlement, settle

router = APIRouter(tags=["orders"])


@router.get("/orders", responses=documented(401, 403, 422, 503))
async def list_orders(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    symbol: SymbolFilter = None,
    side: Side | None = None,
    state: Annotated[list[OrderState] | None, Query(description="Any of these.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> OrderPage:
    """Lists your orders, the newest first; `since` and `until` are about when they were made."""
    wanted = OrderFilter(strategy_id, symbol, side, tuple(state or ()), since, until)
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await reading.list_orders(session, reader.user_id, wanted, limit, after)


@router.get("/orders/{order_id}", responses=documented(401, 403, 404, 422, 503))
async def get_order(context: ContextDep, reader: Reader, order_id: UUID) -> OrderDetail:
    """Gives one of your orders with its fills."""
    async with context.database.transaction() as session:
        return await reading.detail(session, reader.user_id, order_id)


@router.post(
    "/orders/{order_id}/cancel",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def cancel_order(context: ContextDep, trader: Trader, order_id: UUID) -> OrderOut:
    """Asks for what is left of an open order to be cancelled.

    The worker does it: the order's state says whether it came in time. Asking again changes nothing.
    """
    async with context.database.transaction() as session:
        return OrderOut.model_validate(await service.request_cancel(session, trader.user_id, order_id))


@router.post("/orders/{order_id}/settle", responses=documented(401, 403, 404, 409, 422, 503))
async def settle_order(context: ContextDep, trader: Trader, order_id: UUID, given: SettlementIn) -> OrderOut:
    """Says what became of an order of which the exchange says nothing: its symbol is gone, or your key is.

    It is booked as if the exchange had said it, and stands: what the exchange says later is not booked. The
    order is `filled` if all of it was, else `cancelled`; of an exit the rest is made again, unless you cancel
    the order first. 409: it is over, was not sent, or was sent less than a minute ago.
    """
    async with context.database.transaction() as session:
        said = Settlement(given.filled_quantity, given.price, given.fee, given.reason, trader.described)
        return OrderOut.model_validate(await settle(session, trader.user_id, order_id, said))


@router.get("/fills", responses=documented(401, 403, 422, 503))
async def list_fills(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    order_id: UUID | None = None,
    symbol: SymbolFilter = None,
    side: Side | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> FillPage:
    """Lists your fills, the newest first; `since` and `until` are about when they were filled."""
    wanted = FillFilter(strategy_id, order_id, symbol, side, since, until)
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await reading.list_fills(session, reader.user_id, wanted, limit, after)
