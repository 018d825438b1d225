"""Putting the book right: a person says what a strategy holds, or that the exchange is right about it.

What it is more or less than the book said is booked as an order and a fill, so that profit and loss, and the
list of orders, tell how it came about. Nothing is traded.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID, uuid4

import structlog
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC, plain, to_scale
from tradingbot.core.errors import ConflictError, NotFoundError, UnprocessableError
from tradingbot.core.models import utc_now
from tradingbot.core.symbols import market_of
from tradingbot.exchanges import repository as accounts
from tradingbot.exchanges.base import Trade
from tradingbot.exchanges.models import ExchangeAccount, Market, Mode
from tradingbot.orders import client_order_id
from tradingbot.orders import repository as orders
from tradingbot.orders.models import OrderState, Side
from tradingbot.orders.service import record_order
from tradingbot.positions import holdings, queries
from tradingbot.positions import service as positions
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.risk.evaluate import LARGEST

log = structlog.stdlib.get_logger("tradingbot.positions")

_ZERO = Decimal(0)


@dataclass(frozen=True)
class Correction:
    """What a position is, as a person says.

    `quantity` is signed, in the base asset; None: what the account has. `price` (quote asset) is what the
    difference was traded at; None: the last known one. `by` says who the person is.
    """

    quantity: Decimal | None
    price: Decimal | None
    reason: str
    by: str


async def correct(
    session: AsyncSession, user_id: UUID | None, position_id: UUID, said: Correction
) -> Position:
    """Make the book say what a person says.

    Args:
        session: its transaction holds the position's lock afterwards.
        user_id: whose position it has to be; None is anybody's.
        position_id: the position.
        said: what it is.

    Raises:
        NotFoundError: there is no such position.
        ConflictError: it is a paper one, has open orders, or the book says so already.
        UnprocessableError: the quantity or the price cannot be.
    """
    position = await queries.find(session, user_id, position_id, lock=True)
    if position is None:
        raise NotFoundError(
            f"There is no position {position_id}." if user_id is None else "You have no such position."
        )
    strategy = await queries.strategy_of(session, position)
    account = None
    if strategy.exchange_account_id is not None:
        account = await accounts.find(session, position.user_id, strategy.exchange_account_id)
    if account is None or account.mode == Mode.PAPER:
        raise ConflictError("On paper the book is all there is: close the position instead.")
    if (await orders.exposure(session, position.strategy_id, position.symbol))[1]:
        raise ConflictError(
            "An order in this market is open: wait for its end, or cancel or settle it first."
        )
    rows = await holdings.with_market(session, account.id, position.symbol)
    holding = next((row for row in rows if row.market == market_of(position.symbol)), None)
    change = ARITHMETIC.subtract(_wanted(account, position, holding, said), position.quantity)
    if not change:
        raise ConflictError(f"The book says so already: {plain(position.quantity)} {position.symbol}.")
    await _book(session, account, position, change, said)
    # What was seen of the account was seen before.
    for row in rows:
        row.booked = ARITHMETIC.add(row.booked, change)
        await holdings.judge(session, account, row)
    log.warning(
        "a position is corrected by a person",
        position_id=str(position_id),
        by=said.by,
        reason=said.reason,
        change=plain(change),
        quantity=plain(position.quantity),
    )
    return position


def _wanted(
    account: ExchangeAccount, position: Position, holding: AccountHolding | None, said: Correction
) -> Decimal:
    if said.quantity is not None:
        wanted = to_scale(said.quantity)
    elif holding is None or holding.differs_since is None:
        raise ConflictError("As far as is known the account has what the book says: nothing to adopt.")
    else:
        # Both were seen at the same moment: what was traded since then has changed both alike.
        drift = holdings.drift(account.market, holding.quantity, holding.booked)
        wanted = ARITHMETIC.add(position.quantity, drift)
        if account.market == Market.SPOT:
            wanted = max(_ZERO, wanted)
    if account.market == Market.SPOT and wanted < 0:
        raise UnprocessableError("On spot a position is 0 or more.")
    if abs(wanted) > LARGEST:
        raise UnprocessableError(f"A position is at most {plain(LARGEST)}.")
    return wanted


async def _book(
    session: AsyncSession, account: ExchangeAccount, position: Position, change: Decimal, said: Correction
) -> None:
    price = position.last_price if said.price is None else said.price
    if price <= 0:
        raise UnprocessableError("No price of it is known: say at what price the difference was traded.")
    if ARITHMETIC.multiply(abs(change), price) > LARGEST:
        raise UnprocessableError(f"The value of the difference is at most {plain(LARGEST)}.")
    order = await orders.insert_once(
        session,
        {
            "user_id": position.user_id,
            "strategy_id": position.strategy_id,
            "exchange_account_id": account.id,
            "client_order_id": client_order_id.for_key(position.user_id, f"correction:{uuid4()}"),
            "symbol": position.symbol,
            "side": Side.BUY if change > 0 else Side.SELL,
            "quantity": abs(change),
            "price": price,
            "reduce_only": False,
            "state": OrderState.FILLED,
            "reason": f"corrected by {said.by}: {said.reason}"[:500],
            "settled_at": func.clock_timestamp(),
        },
    )
    if order is None:
        raise RuntimeError("an order that was just made conflicts with another one")
    trade = Trade(f"corrected-{order.id}", abs(change), to_scale(price), _ZERO, None, utc_now())
    await positions.apply(session, order, trade)
    await record_order(session, order)
