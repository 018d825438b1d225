"""GET /signals and /signals/{signal_id}."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from tradingbot.auth.dependencies import Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.moments import Moment
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.signals import service
from tradingbot.signals.models import SignalStatus
from tradingbot.signals.repository import SignalFilter
from tradingbot.signals.schemas import SignalDetail, SignalPage

router = APIRouter(prefix="/signals", tags=["signals"])


@router.get("", responses=documented(401, 403, 422, 503))
async def list_signals(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    symbol: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    status: SignalStatus | None = None,
    since: Annotated[Moment | None, Query(description="Received then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Received before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> SignalPage:
    """Lists your signals, the newest first."""
    wanted = SignalFilter(strategy_id, symbol, status, since, until)
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, wanted, limit, after)


@router.get("/{signal_id}", responses=documented(401, 403, 404, 422, 503))
async def get_signal(context: ContextDep, reader: Reader, signal_id: UUID) -> SignalDetail:
    """Gives one of your signals, and what came of it."""
    async with context.database.transaction() as session:
        return await service.detail(session, reader.user_id, signal_id)
