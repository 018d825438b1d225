"""Closing a position by hand."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.core.errors import ConflictError, NotFoundError
from tradingbot.orders import client_order_id, exits
from tradingbot.orders import repository as orders
from tradingbot.orders.models import Order, Side
from tradingbot.orders.service import ManualOrder, create_manual
from tradingbot.positions import queries
from tradingbot.positions import service as positions
from tradingbot.positions.models import Position


async def close(session: AsyncSession, user_id: UUID, position_id: UUID, key: str) -> Order:
    """Stores and queues an order that closes the user's position; gives the stored one if the key was used.

    The worker takes it up before everything else in its market: it cancels what is open there, and makes the
    order of all that is held then.

    Raises:
        NotFoundError: the user has no such position.
        ConflictError: nothing is left to close, a close by hand is under way, or the key was used for another
            order.
    """
    # Whoever decides on an order for this position takes this lock first.
    position = await queries.find(session, user_id, position_id, lock=True)
    if position is None:
        raise NotFoundError("You have no such position.")
    name = client_order_id.for_key(user_id, key)
    earlier = await orders.find_by_client_order_id(session, user_id, name)
    if earlier is not None:
        return _same(earlier, position)
    # What was dust may be worth enough by now: the worker asks.
    if position.quantity == 0:
        raise ConflictError("The position is closed.")
    under_way = await closing_by_hand(session, position)
    if under_way is not None:
        raise ConflictError(f"A close by hand is under way: cancel its order {under_way.id} first, or wait.")
    strategy = await queries.strategy_of(session, position)
    side = Side.SELL if position.quantity > 0 else Side.BUY
    held = ARITHMETIC.abs(position.quantity)
    # The worker makes it of all that is held. One of the version before, which may still be there while this
    # one is deployed, sends it as it is: less what other orders may close meanwhile.
    pending = await positions.pending_of_side(session, position.strategy_id, position.symbol, side)
    rest = ARITHMETIC.subtract(held, pending)
    wanted = ManualOrder(
        key=key,
        symbol=position.symbol,
        side=side,
        quantity=rest if rest > 0 else held,
        price=position.last_price,
        reduce_only=True,
    )
    return await create_manual(session, strategy, wanted)


def _same(order: Order, position: Position) -> Order:
    if (order.strategy_id, order.symbol, order.reduce_only) != (position.strategy_id, position.symbol, True):
        raise ConflictError("This Idempotency-Key was used for another order.")
    return order


async def closing_by_hand(session: AsyncSession, position: Position) -> Order | None:
    """Return the open order of a close by hand, None if there is none or it shall be cancelled."""
    for order in await orders.open_exits(session, position.strategy_id, position.symbol):
        first = await exits.first_of(session, order)
        if first is not None and exits.is_by_hand(first):
            return order
    return None
