"""A close by hand goes before everything else in its market.

Its row is urgent, so it does not wait behind signals, nor behind an order whose fate is unknown. Here, just
before it is sent, what is open in its way is cancelled, and it is made of all that is held then. Only an
order that may close the same is waited for: both together would go through zero.
"""

from decimal import Decimal
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC
from tradingbot.core.crypto import EnvelopeError
from tradingbot.core.errors import UnavailableError
from tradingbot.exchanges.base import ExchangeError
from tradingbot.orders import exits, repository
from tradingbot.orders.changes import Changes, Changing
from tradingbot.orders.models import Order, OrderState, Side
from tradingbot.orders.outcome import DONE, Later, Outcome
from tradingbot.orders.placing import Placer, is_known
from tradingbot.orders.service import record_order
from tradingbot.positions import service as positions

log = structlog.stdlib.get_logger("tradingbot.orders")

_WAIT_FOR_ORDER = 0.5


class Overtaker:
    """Makes way for closes by hand."""

    def __init__(self, changing: Changing, placer: Placer) -> None:
        self._changing = changing
        self._placer = placer

    async def make_way(self, order_id: UUID) -> Outcome | None:
        """Cancel what is open in the market of a close by hand, and have it close all that is held.

        Return what is to be done instead of sending it, None if it can be sent; so can any other order.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        async with self._changing.transaction() as changes:
            placement = await repository.placement(changes.session, order_id)
            if placement is None or not _waits(placement.order):
                return None
            order, exchange = placement.order, placement.account.exchange
            others = await repository.open_in_market(changes.session, order)
            # All orders before the first event, which locks the user's sequence.
            noted = [await repository.request_cancel(changes.session, other.id) for other in others]
            for cancelled in filter(None, noted):
                await record_order(changes.session, cancelled)
        for other in others:
            await self._end(other)
        async with self._changing.transaction() as changes:
            return await _take_all(changes, order.id, exchange)

    async def _end(self, other: Order) -> None:
        try:
            if is_known(other) or other.state == OrderState.NEW:
                await self._placer.cancel(other.id)
            else:
                await self._placer.refresh(other.id)
        except (ExchangeError, EnvelopeError) as error:
            # Its own row, or the reconcile loop, goes on with it.
            log.warning("an order is not cancelled yet", order_id=str(other.id), reason=str(error))
        except UnavailableError:
            raise
        except Exception:
            # What is wrong with another order does not keep this one back.
            log.exception("an order is not cancelled", order_id=str(other.id))


def _waits(order: Order) -> bool:
    """Return whether it is a close by hand that is still to be sent."""
    return exits.is_by_hand(order) and order.state == OrderState.NEW and order.cancel_requested_at is None


async def _take_all(changes: Changes, order_id: UUID, exchange: str) -> Outcome | None:
    session = changes.session
    order = await repository.lock(session, order_id)
    if order is None or not _waits(order):
        return None
    held = await positions.held_quantity(session, order.strategy_id, order.symbol)
    if await _others_close(session, order):
        return Later("an earlier order may still close it", _WAIT_FOR_ORDER, stuck=order.symbol)
    if not exits.is_against(order, held):
        turned = "what is held is of the other side by now: close it again"
        reason = turned if held else "nothing is left to close"
        order = await repository.move(session, order_id, OrderState.CANCELLED, reason=reason)
    elif order.quantity > abs(held) or (order.attempts == 0 and order.quantity < abs(held)):
        # Once it was sent it may be smaller: cut to what the account holds.
        order = await repository.resize(session, order_id, abs(held))
    else:
        return None
    if order is None:
        return None
    await changes.order(order, exchange)
    return DONE if order.state == OrderState.CANCELLED else None


async def _others_close(session: AsyncSession, order: Order) -> bool:
    """Return whether another open order may still fill on the order's side."""
    pending = await positions.pending_of_side(session, order.strategy_id, order.symbol, Side(order.side))
    own = ARITHMETIC.subtract(order.quantity, order.filled_quantity)
    return ARITHMETIC.subtract(pending, own) > Decimal(0)
