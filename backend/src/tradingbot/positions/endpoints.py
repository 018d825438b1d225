"""Endpoints under /positions."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, status

from tradingbot.auth.dependencies import Reader, Trader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit, Since, SymbolFilter, Until
from tradingbot.orders.schemas import OrderOut
from tradingbot.positions import closing, reading
from tradingbot.positions.correcting import Correction, correct
from tradingbot.positions.queries import PositionFilter
from tradingbot.positions.schemas import (
    AdoptionIn,
    CorrectionIn,
    DifferencePage,
    Direction,
    PositionOut,
    PositionPage,
    SummaryPage,
)

router = APIRouter(prefix="/positions", tags=["positions"])

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[!-~]+$",
        description="Of your choice, a new one for each close that you mean: the same key is the same order.",
    ),
]


@router.get("", responses=documented(401, 403, 422, 503))
async def list_positions(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    symbol: SymbolFilter = None,
    side: Direction | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> PositionPage:
    """Lists your positions, the last changed first; `since` and `until` are about their last change."""
    wanted = PositionFilter(strategy_id, symbol, side, since, until)
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await reading.list_page(session, reader.user_id, wanted, limit, after)


@router.get("/summary", responses=documented(401, 403, 422, 503))
async def get_summary(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> SummaryPage:
    """Gives the profit and loss of each of your strategies that has traded, the newest strategy first."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await reading.summary(session, reader.user_id, strategy_id, limit, after)


@router.get("/differences", responses=documented(401, 403, 422, 503))
async def list_differences(
    context: ContextDep, reader: Reader, limit: Limit = 50, cursor: CursorText = None
) -> DifferencePage:
    """Lists where your accounts hold something else than their strategies think, the newest first.

    Nothing is opened in such a market until it agrees again: trade the difference back at the exchange, or
    put the book right (`adopt`, `correct`).
    """
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await reading.differences(session, reader.user_id, limit, after)


@router.get("/{position_id}", responses=documented(401, 403, 404, 422, 503))
async def get_position(context: ContextDep, reader: Reader, position_id: UUID) -> PositionOut:
    """Gives one of your positions."""
    async with context.database.transaction() as session:
        return await reading.one(session, reader.user_id, position_id)


@router.post(
    "/{position_id}/close",
    status_code=status.HTTP_202_ACCEPTED,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def close_position(
    context: ContextDep, trader: Trader, position_id: UUID, key: IdempotencyKey
) -> OrderOut:
    """Makes a market order that closes the position. It is for the worker to place; a halt does not stop it.

    The worker takes it up before everything else in its market, cancels what is open there, and makes the
    order of all that is held then. It is never too late, and goes on until nothing but dust is left or it is
    cancelled. While one is under way another one is refused with 409.
    """
    async with context.database.transaction() as session:
        return OrderOut.model_validate(await closing.close(session, trader.user_id, position_id, key))


@router.post("/{position_id}/adopt", responses=documented(401, 403, 404, 409, 422, 503))
async def adopt_position(
    context: ContextDep, trader: Trader, position_id: UUID, given: AdoptionIn
) -> PositionOut:
    """Makes the book say what the exchange says: its owner closed it by hand, say, or it was liquidated.

    The difference is booked as an order and a fill; nothing is traded. 409: nothing differs, as far as is
    known, or an order in this market is open.
    """
    said = Correction(None, given.price, given.reason, trader.described)
    async with context.database.transaction() as session:
        return PositionOut.of(await correct(session, trader.user_id, position_id, said))


@router.post("/{position_id}/correct", responses=documented(401, 403, 404, 409, 422, 503))
async def correct_position(
    context: ContextDep, trader: Trader, position_id: UUID, given: CorrectionIn
) -> PositionOut:
    """Makes the book say what you say.

    The difference is booked as an order and a fill; nothing is traded. 409: the book says so already, an
    order in this market is open, or the account is a paper one.
    """
    said = Correction(given.quantity, given.price, given.reason, trader.described)
    async with context.database.transaction() as session:
        return PositionOut.of(await correct(session, trader.user_id, position_id, said))
