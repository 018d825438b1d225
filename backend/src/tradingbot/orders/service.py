"""Orders made and cancelled by hand. They are stored and queued here, and carried out by the worker."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import to_scale
from tradingbot.core.errors import ConflictError, NotFoundError
from tradingbot.events.service import EventType, record
from tradingbot.exchanges import repository as accounts
from tradingbot.exchanges.service import default_account
from tradingbot.orders import client_order_id, repository
from tradingbot.orders.models import FINAL_STATES, Order, Side
from tradingbot.orders.schemas import OrderOut
from tradingbot.outbox import repository as outbox
from tradingbot.outbox.models import Priority, Task
from tradingbot.strategies.models import Strategy

log = structlog.stdlib.get_logger("tradingbot.orders")


@dataclass(frozen=True)
class ManualOrder:
    """A market order made by hand. `key` is the client's: the same key is the same order, once."""

    key: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal | None = None
    reduce_only: bool = False


async def create_manual(session: AsyncSession, strategy: Strategy, wanted: ManualOrder) -> Order:
    """Stores and queues an order for the strategy, on its account; gives the stored one if the key was used.

    Kill switches and limits do not apply: what is done by hand is meant.

    Raises:
        ConflictError: the key was used for another order.
    """
    account_id = strategy.exchange_account_id
    if account_id is None or await accounts.find(session, strategy.user_id, account_id) is None:
        account_id = (await default_account(session, strategy.user_id)).id
    name = client_order_id.for_key(strategy.user_id, wanted.key)
    values = {
        "user_id": strategy.user_id,
        "strategy_id": strategy.id,
        "exchange_account_id": account_id,
        "client_order_id": name,
        "symbol": wanted.symbol,
        "side": wanted.side,
        "quantity": wanted.quantity,
        "price": wanted.price,
        "reduce_only": wanted.reduce_only,
    }
    order = await repository.insert_once(session, values)
    if order is None:
        return await _stored(session, strategy, wanted, name)
    await outbox.add(
        session, Task.ORDER, strategy.id, order.symbol, order_id=order.id, priority=Priority.URGENT
    )
    await record_order(session, order)
    return order


async def request_cancel(session: AsyncSession, user_id: UUID, order_id: UUID) -> Order:
    """Notes that an order shall be cancelled, and queues it; asking again changes nothing.

    Raises:
        NotFoundError: the user has no such order.
        ConflictError: the order is over.
    """
    order = await repository.find_of_user(session, user_id, order_id)
    if order is None:
        raise NotFoundError("You have no such order.")
    noted = await repository.request_cancel(session, order_id)
    if noted is not None:
        # An exit that waits for its next attempt ends with that attempt.
        await outbox.hurry(session, noted.strategy_id)
        await outbox.add(
            session,
            Task.CANCEL,
            noted.strategy_id,
            noted.symbol,
            order_id=order_id,
            priority=Priority.URGENT,
        )
        log.info("an order shall be cancelled", order_id=str(order_id), user_id=str(user_id))
        await record_order(session, noted)
        return noted
    await session.refresh(order)
    if order.state in FINAL_STATES and order.cancel_requested_at is None:
        raise ConflictError(f"The order is {order.state}.")
    return order


async def _stored(session: AsyncSession, strategy: Strategy, wanted: ManualOrder, name: str) -> Order:
    order = await repository.find_by_client_order_id(session, strategy.user_id, name)
    if order is None:
        raise RuntimeError("an order conflicts with one that cannot be seen")
    same = (strategy.id, wanted.symbol, wanted.side, to_scale(wanted.quantity), wanted.reduce_only)
    if (order.strategy_id, order.symbol, order.side, order.quantity, order.reduce_only) != same:
        raise ConflictError("This key was used for another order.")
    return order


async def record_order(session: AsyncSession, order: Order) -> None:
    """Tell the user's live connections where the order stands."""
    shown = OrderOut.model_validate(order).model_dump(mode="json")
    await record(session, order.user_id, EventType.ORDER, shown)
