"""Books fills: the fill, the position and the order change in one transaction."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC, to_scale
from tradingbot.core.models import utc_now
from tradingbot.core.symbols import market_of
from tradingbot.events.service import EventType, record
from tradingbot.exchanges.base import Trade
from tradingbot.orders.models import Order, Side
from tradingbot.orders.schemas import FillOut
from tradingbot.positions import repository
from tradingbot.positions.accounting import PositionState, apply_fill, average_fill_price, unrealised_pnl
from tradingbot.positions.models import Position, PriceSource
from tradingbot.positions.schemas import PositionOut

log = structlog.stdlib.get_logger("tradingbot.positions")


async def apply(session: AsyncSession, order: Order, trade: Trade) -> bool:
    """Books a trade of the order, once however often it is reported; tells whether it was new.

    Locks the order, then the position. Changes `filled_quantity` and `average_price` of the order, not its
    state. More than was ordered is booked too: it is what the account holds.

    Raises:
        ValueError: a trade whose quantity is not positive or whose price is negative.
        sqlalchemy.exc.NoResultFound: there is no such order.
    """
    stored = await repository.lock_order(session, order.id)
    if await repository.has_fill(session, stored.id, trade.trade_id):
        return False
    quantity, price, fee = to_scale(trade.quantity), to_scale(trade.price), to_scale(trade.fee)
    position = await repository.lock_position(session, stored.user_id, stored.strategy_id, stored.symbol)
    held = PositionState(position.quantity, position.average_price)
    result = apply_fill(held, Side(stored.side), quantity, price)
    fill = await repository.insert_fill(
        session,
        {
            "user_id": stored.user_id,
            "strategy_id": stored.strategy_id,
            "order_id": stored.id,
            "exchange_trade_id": trade.trade_id,
            "symbol": stored.symbol,
            "side": stored.side,
            "quantity": quantity,
            "price": price,
            "fee": fee,
            "fee_asset": trade.fee_asset,
            "unvalued_fee": to_scale(trade.unvalued_fee),
            "realised_pnl": result.realised_pnl,
            "filled_at": trade.at,
        },
    )
    now = utc_now()
    if held.quantity == 0:
        # Where it was got into by this name it is got out of, too: an earlier one may be of another account.
        position.symbol = stored.symbol
    position.quantity, position.average_price = result.position.quantity, result.position.average_price
    position.realised_pnl = ARITHMETIC.add(position.realised_pnl, result.realised_pnl)
    position.fees = ARITHMETIC.add(position.fees, fee)
    position.updated_at = now
    _see_price(position, trade)
    stored.average_price = average_fill_price(
        stored.filled_quantity, stored.average_price or price, quantity, price
    )
    stored.filled_quantity = ARITHMETIC.add(stored.filled_quantity, quantity)
    stored.updated_at = now
    await session.flush()
    if stored.filled_quantity > stored.quantity:
        log.warning("more was filled than ordered", order_id=str(stored.id), symbol=stored.symbol)
    await record(
        session, stored.user_id, EventType.FILL, FillOut.model_validate(fill).model_dump(mode="json")
    )
    await record(
        session, stored.user_id, EventType.POSITION, PositionOut.of(position).model_dump(mode="json")
    )
    return True


async def expected_quantity(session: AsyncSession, strategy_id: UUID, symbol: str) -> Decimal:
    """Gives the signed quantity that the strategy holds, with what its open orders will still add.

    An order that is not known to have ended counts as if it will be filled. The position is locked until the
    transaction ends, so that of two who decide on it at once the second sees the order of the first.
    """
    held = await repository.held_quantity(session, strategy_id, symbol)
    buys = await repository.pending_of_side(session, strategy_id, symbol, Side.BUY)
    sells = await repository.pending_of_side(session, strategy_id, symbol, Side.SELL)
    return ARITHMETIC.subtract(ARITHMETIC.add(held, buys), sells)


async def held_quantity(session: AsyncSession, strategy_id: UUID, symbol: str) -> Decimal:
    """Return the signed quantity that the strategy holds, by what is booked."""
    return await repository.held_quantity(session, strategy_id, symbol)


async def pending_of_side(session: AsyncSession, strategy_id: UUID, symbol: str, side: Side) -> Decimal:
    """Return what the strategy's open orders of this side may still fill of the symbol."""
    return await repository.pending_of_side(session, strategy_id, symbol, side)


async def find(session: AsyncSession, strategy_id: UUID, symbol: str) -> Position | None:
    """Return what the strategy holds in the market of the symbol; None if it never held any."""
    return await repository.find(session, strategy_id, symbol)


async def note_min_quantity(
    session: AsyncSession, strategy_id: UUID, symbol: str, min_quantity: Decimal
) -> None:
    """Note the least quantity that the market takes of an exit; to be called with the position's lock."""
    await repository.note_min_quantity(session, strategy_id, symbol, min_quantity)


async def unrealised_of(
    session: AsyncSession, strategy_id: UUID, symbol: str, price: Decimal | None
) -> Decimal:
    """Gives the strategy's unrealised P&L: of `symbol` at `price` if given, else at last known prices."""
    total = Decimal(0)
    for position in await repository.list_open(session, strategy_id):
        given = price if market_of(position.symbol) == market_of(symbol) else None
        state = PositionState(position.quantity, position.average_price)
        total = ARITHMETIC.add(total, unrealised_pnl(state, position.last_price if given is None else given))
    return total


async def mark(session: AsyncSession, strategy_id: UUID, symbol: str, price: Decimal, at: datetime) -> None:
    """Notes that the symbol had this price, for the unrealised P&L that is shown; older news are left out."""
    await repository.mark(session, strategy_id, symbol, price, at)


def _see_price(position: Position, trade: Trade) -> None:
    is_first = position.last_price == 0
    if is_first or trade.at >= position.last_price_at:
        position.last_price, position.last_price_at = to_scale(trade.price), trade.at
        position.last_price_source = PriceSource.FILL
