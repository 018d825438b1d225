"""Endpoints under /risk/halts: the kill switches."""

from uuid import UUID

from fastapi import APIRouter, status

from tradingbot.auth.dependencies import Admin, Reader, Trader
from tradingbot.core.context import Context, ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit
from tradingbot.risk import halts
from tradingbot.risk.halts import EVERYBODY, Target
from tradingbot.risk.halts_schemas import HaltIn, HaltOut, HaltPage

router = APIRouter(prefix="/halts")


@router.get("", responses=documented(401, 403, 422, 503))
async def list_halts(
    context: ContextDep, reader: Reader, limit: Limit = 50, cursor: CursorText = None
) -> HaltPage:
    """Lists what keeps your strategies from trading: your own halts, and the one for everybody."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await halts.list_page(session, reader.user_id, limit, after)


@router.put("/all", responses=documented(401, 403, 422, 503))
async def halt_all(context: ContextDep, trader: Trader, given: HaltIn | None = None) -> HaltOut:
    """Halts new entries of all of your strategies, also of those that you have not made yet. Exits pass.

    With `flatten` it cancels all of your open orders and closes all of your positions, too.
    """
    return await _on(context, Target(trader.user_id), given)


@router.delete("/all", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 403, 503))
async def release_all(context: ContextDep, trader: Trader) -> None:
    """Ends the halt of all; those of single strategies stay."""
    await _off(context, Target(trader.user_id))


@router.put("/strategies/{strategy_id}", responses=documented(401, 403, 404, 422, 503))
async def halt_strategy(
    context: ContextDep, trader: Trader, strategy_id: UUID, given: HaltIn | None = None
) -> HaltOut:
    """Halts new entries of one of your strategies. Exits pass.

    With `flatten` it cancels the strategy's open orders and closes its positions, too.
    """
    return await _on(context, Target(trader.user_id, strategy_id), given)


@router.delete(
    "/strategies/{strategy_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(401, 403, 404, 422, 503),
)
async def release_strategy(context: ContextDep, trader: Trader, strategy_id: UUID) -> None:
    """Ends the halt of this strategy; it trades again unless all are halted."""
    await _off(context, Target(trader.user_id, strategy_id))


@router.put("/everybody", responses=documented(401, 403, 422, 503))
async def halt_everybody(context: ContextDep, _admin: Admin, given: HaltIn | None = None) -> HaltOut:
    """Halts new entries of every strategy of every user. Exits pass. Administrators only.

    With `flatten` it cancels all open orders and closes all positions of everybody, too.
    """
    return await _on(context, EVERYBODY, given)


@router.delete("/everybody", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 403, 503))
async def release_everybody(context: ContextDep, _admin: Admin) -> None:
    """Ends the halt of everybody; those of users and strategies stay. Administrators only."""
    await _off(context, EVERYBODY)


async def _on(context: Context, target: Target, given: HaltIn | None) -> HaltOut:
    given = given or HaltIn()
    async with context.database.transaction() as session:
        return await halts.switch_on(session, target, given.reason, flatten=given.flatten)


async def _off(context: Context, target: Target) -> None:
    async with context.database.transaction() as session:
        await halts.switch_off(session, target)
