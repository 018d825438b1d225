"""What an order closes, and what is left of that to close.

An exit goes on until nothing is left, or a person says stop: a part that the exchange does not fill, and what
is more than its largest order, is closed by further orders, named after the first one and made one at a time.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.orders import client_order_id, repository
from tradingbot.orders.models import FINAL_STATES, Order, OrderState, Side
from tradingbot.positions import service as positions

# Why an order that the exchange had is over for us: whether it closed something a person has to see.
LOST = "the exchange does not know it any more"
# Why one that was refused is not sent again, nor followed by another one.
DUST = "what is left is dust"

# Why an exit is over of which the account has nothing any more: its owner, or the exchange, was quicker.
GONE = "the account does not hold it any more"

_ZERO = Decimal(0)


@dataclass(frozen=True)
class Left:
    """What is left to close of `first`; `last` is the newest of the orders that were made for it.

    `quantity` is known when `last` is over.
    """

    first: Order
    last: Order
    orders: int
    quantity: Decimal


async def closes(session: AsyncSession, order: Order) -> Decimal:
    """Return what the open order may bring the position nearer to zero by; the position is locked.

    Less what other open orders close already.
    """
    held = await positions.held_quantity(session, order.strategy_id, order.symbol)
    if not is_against(order, held):
        return _ZERO
    pending = await positions.pending_of_side(session, order.strategy_id, order.symbol, Side(order.side))
    own = order.quantity - order.filled_quantity
    return max(_ZERO, min(own, abs(held) - (pending - own)))


async def first_of(session: AsyncSession, order: Order) -> Order | None:
    """Return the order that this one goes on with; a first one is its own."""
    name = client_order_id.first_of(order.client_order_id)
    return await repository.find_by_client_order_id(session, order.user_id, name)


async def left_of(session: AsyncSession, order_id: UUID) -> Left | None:
    """Return what is left to close of an order that was placed, None if nothing is or a person said stop."""
    order = await repository.find(session, order_id)
    found = None if order is None else await first_of(session, order)
    first = None if found is None else await repository.lock(session, found.id)
    if first is None:
        return None
    held = await positions.held_quantity(session, first.strategy_id, first.symbol)
    if not is_against(first, held):
        return None
    orders = [first, *await repository.parts(session, first)]
    last = orders[-1]
    if any(order.cancel_requested_at is not None for order in orders):
        return None
    reason = last.reason or ""
    # What the exchange has booked as rejected is over, like what it cancels.
    is_ours = last.state == OrderState.REJECTED and last.exchange_order_id is None
    if is_ours or reason == LOST or reason.startswith((DUST, GONE)):
        return None
    if last.state not in FINAL_STATES:
        return Left(first, last, len(orders), _ZERO)
    filled = sum((order.filled_quantity for order in orders), _ZERO)
    pending = await positions.pending_of_side(session, first.strategy_id, first.symbol, Side(first.side))
    quantity = min(ARITHMETIC.subtract(first.quantity, filled), ARITHMETIC.subtract(abs(held), pending))
    return Left(first, last, len(orders), quantity) if quantity > 0 else None


async def go_on(session: AsyncSession, left: Left, least: Decimal) -> Order | None:
    """Return the order that closes what is left; None if that is less than `least`, or done by now."""
    now = await left_of(session, left.first.id)
    if now is not None and now.last.state not in FINAL_STATES:
        # Another worker was quicker: our claim was lost for a moment.
        return now.last
    if now is None or now.quantity < least:
        return None
    first, name = now.first, client_order_id.for_part(now.first.client_order_id, now.orders)
    order = await repository.insert_once(
        session,
        {
            "user_id": first.user_id,
            "strategy_id": first.strategy_id,
            "exchange_account_id": first.exchange_account_id,
            "client_order_id": name,
            "symbol": first.symbol,
            "side": first.side,
            "quantity": now.quantity,
            "price": first.price,
            "reduce_only": True,
        },
    )
    return order or await repository.find_by_client_order_id(session, first.user_id, name)


def is_by_hand(order: Order) -> bool:
    """Return whether a person asked for the order: a close. A part of an exit has a name of its own kind."""
    return order.signal_id is None and order.reduce_only and client_order_id.PART not in order.client_order_id


def is_against(order: Order, held: Decimal) -> bool:
    """Return whether the order brings what is held (signed) nearer to zero."""
    return held != 0 and (held > 0) == (order.side == Side.SELL)
