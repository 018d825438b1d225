"""What tests of exits do, and what they wait for."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.desk import Desk
from tests.stub_exchange import Fault
from tests.stub_exchange.faults import FOREVER
from tradingbot.exchanges.models import Market, Mode
from tradingbot.orders.models import Order, OrderState
from tradingbot.positions import closing
from tradingbot.positions.models import Position
from tradingbot.signals.models import Signal

D = Decimal
# The exchange says nothing of any order.
SILENT = Fault("answer", method="GET", times=FOREVER)

Say = Callable[..., Awaitable[Signal]]


async def queue(desk: Desk, strategy: UUID, word: str, size: str | None = None, **columns: Any) -> UUID:
    """Queues `buy`, `sell`, `close` or a target position: `long`, `short`, `flat`."""
    amount = None if size is None else D(size)
    if word in ("long", "short", "flat"):
        return await desk.queue(
            strategy, None, market_position=word, position_size=amount, quantity=None, **columns
        )
    return await desk.queue(strategy, word, quantity=amount, **columns)


async def spot(desk: Desk, **columns: Any) -> UUID:
    return await desk.strategy(await desk.account(), **columns)


async def future(desk: Desk, **columns: Any) -> UUID:
    return await desk.strategy(await desk.account(market=Market.FUTURE, mode=Mode.DEMO), **columns)


async def close(desk: Desk, key: str = "key") -> Order:
    """Closes the only position by hand."""
    (position,) = await desk.all(Position)
    async with desk.database.transaction() as session:
        return await closing.close(session, desk.user_id, position.id, key)


async def has_state(desk: Desk, number: int, state: OrderState) -> bool:
    orders = await desk.orders()
    return len(orders) > number and orders[number].state == state


async def was_told(told: list[tuple[str, str]], words: str) -> bool:
    return any(words in text for _, text in told)
