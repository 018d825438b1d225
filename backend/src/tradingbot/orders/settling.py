"""Settling: a person says what became of an order of which the exchange says nothing.

The symbol may be gone, the key revoked, or the account closed. What the person says is booked as if the
exchange had said it, and it stands: what an exchange reports of a settled order later is not booked, since it
would be booked twice.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import structlog
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.core.errors import ConflictError, NotFoundError, UnprocessableError
from tradingbot.core.models import utc_now
from tradingbot.exchanges.base import Trade
from tradingbot.orders import repository, service
from tradingbot.orders.models import FINAL_STATES, Order, OrderState
from tradingbot.outbox import repository as outbox
from tradingbot.positions import service as positions
from tradingbot.risk.evaluate import LARGEST

log = structlog.stdlib.get_logger("tradingbot.orders")

# So long after it was sent the order may still arrive at the exchange, or its answer at a worker.
_UNDER_WAY = timedelta(seconds=60)
_ZERO = Decimal(0)


@dataclass(frozen=True)
class Settlement:
    """What became of an order, as a person says.

    `filled_quantity` is all that was filled of it, in the base asset; what is booked of that already has its
    price, `price` (and `fee`, in the quote asset) is that of the rest. `by` says who the person is.
    """

    filled_quantity: Decimal
    price: Decimal | None
    fee: Decimal
    reason: str
    by: str


async def settle(session: AsyncSession, user_id: UUID | None, order_id: UUID, said: Settlement) -> Order:
    """End an order as a person says: `filled` if all of it was, else `cancelled`. Return it.

    Args:
        session: its transaction holds the order's lock afterwards.
        user_id: whose order it has to be; None is anybody's.
        order_id: the order.
        said: what became of it.

    Raises:
        NotFoundError: there is no such order.
        ConflictError: it is over, was not sent yet, or was sent just now.
        UnprocessableError: the quantity or the price cannot be.
    """
    if user_id is not None and await repository.find_of_user(session, user_id, order_id) is None:
        raise NotFoundError("You have no such order.")
    order = await repository.lock(session, order_id)
    if order is None:
        raise NotFoundError(f"There is no order {order_id}.")
    _check_state(order)
    rest = _rest(order, said)
    if rest:
        trade = Trade(f"settled-{order.id}", rest, said.price or _ZERO, said.fee, None, utc_now())
        await positions.apply(session, order, trade)
    is_filled = order.filled_quantity >= order.quantity
    reason = f"settled by {said.by}: {said.reason}"[:500]
    settled = await repository.move(
        session,
        order.id,
        OrderState.FILLED if is_filled else OrderState.CANCELLED,
        reason=reason,
        settled_at=func.clock_timestamp(),
    )
    if settled is None:
        raise RuntimeError("an order that is locked has changed")
    # What waited for this order goes on now, the rest of an exit too.
    await outbox.hurry(session, settled.strategy_id)
    log.warning(
        "an order is settled by a person",
        order_id=str(order_id),
        by=said.by,
        reason=said.reason,
        filled=plain(settled.filled_quantity),
        state=settled.state,
    )
    await service.record_order(session, settled)
    return settled


def _check_state(order: Order) -> None:
    if order.state in FINAL_STATES:
        raise ConflictError(f"The order is {order.state}: there is nothing to settle.")
    if order.state == OrderState.NEW:
        raise ConflictError("The order was not sent: cancel it instead.")
    if order.submitted_at is not None:
        left = (order.submitted_at + _UNDER_WAY - utc_now()).total_seconds()
        if left > 0:
            raise ConflictError(f"The order was sent just now: ask again in {left:.0f} seconds.")


def _rest(order: Order, said: Settlement) -> Decimal:
    """Return what is to be booked beyond what is booked already."""
    booked, filled = order.filled_quantity, said.filled_quantity
    if not booked <= filled <= order.quantity:
        raise UnprocessableError(
            f"The filled quantity is from {plain(booked)}, which is booked, to {plain(order.quantity)}, which"
            f" was ordered; {plain(filled)} is not."
        )
    rest = ARITHMETIC.subtract(filled, booked)
    if max(said.fee, ARITHMETIC.multiply(rest, said.price or _ZERO)) > LARGEST:
        raise UnprocessableError(f"The value and the fee are at most {plain(LARGEST)}.")
    if rest and said.price is None:
        raise UnprocessableError(f"At what price were {plain(rest)} filled? Give the price.")
    if not rest and (said.price is not None or said.fee):
        raise UnprocessableError(
            f"Nothing is filled beyond {plain(booked)}, which is booked: leave out price and fee."
        )
    return rest
