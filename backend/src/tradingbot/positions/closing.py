"""Closing a position by hand."""

from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.core.errors import ConflictError, NotFoundError
from tradingbot.orders import client_order_id
from tradingbot.orders import repository as orders
from tradingbot.orders.models import Order, Side
from tradingbot.orders.service import ManualOrder, create_manual
from tradingbot.positions import queries, repository
from tradingbot.positions.models import Position


async def close(session: AsyncSession, user_id: UUID, position_id: UUID, key: str) -> Order:
    """Stores and queues an order that closes the user's position; gives the stored one if the key was used.

    It is of what is held less what open orders may already close, so whatever becomes of those it does not go
    through zero.

    Raises:
        NotFoundError: the user has no such position.
        ConflictError: nothing is left to close, or the key was used for another order.
    """
    # Whoever decides on an order for this position takes this lock first.
    position = await queries.find(session, user_id, position_id, lock=True)
    if position is None:
        raise NotFoundError("You have no such position.")
    name = client_order_id.for_key(user_id, key)
    earlier = await orders.find_by_client_order_id(session, user_id, name)
    if earlier is not None:
        return _same(earlier, position)
    side = Side.SELL if position.quantity > 0 else Side.BUY
    quantity = await _left_to_close(session, position, side)
    strategy = await queries.strategy_of(session, position)
    wanted = ManualOrder(
        key=key,
        symbol=position.symbol,
        side=side,
        quantity=quantity,
        price=position.last_price,
        reduce_only=True,
    )
    return await create_manual(session, strategy, wanted)


def _same(order: Order, position: Position) -> Order:
    if (order.strategy_id, order.symbol, order.reduce_only) != (position.strategy_id, position.symbol, True):
        raise ConflictError("This Idempotency-Key was used for another order.")
    return order


async def _left_to_close(session: AsyncSession, position: Position, side: Side) -> Decimal:
    # What was dust may be worth enough by now: the worker asks.
    if position.quantity == 0:
        raise ConflictError("The position is closed.")
    pending = await repository.pending_of_side(session, position.strategy_id, position.symbol, side)
    left = ARITHMETIC.subtract(ARITHMETIC.abs(position.quantity), pending)
    if left <= 0:
        raise ConflictError("Open orders are closing the position already.")
    return left
