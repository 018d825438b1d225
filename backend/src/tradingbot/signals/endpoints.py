"""GET /signals and /signals/{signal_id}."""

from uuid import UUID

from fastapi import APIRouter

from tradingbot.auth.dependencies import Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit, Since, SymbolFilter, Until
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
    symbol: SymbolFilter = None,
    status: SignalStatus | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> SignalPage:
    """Lists your signals, the newest first; `since` and `until` are about when they were received."""
    wanted = SignalFilter(strategy_id, symbol, status, since, until)
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, wanted, limit, after)


@router.get("/{signal_id}", responses=documented(401, 403, 404, 422, 503))
async def get_signal(context: ContextDep, reader: Reader, signal_id: UUID) -> SignalDetail:
    """Gives one of your signals, and what came of it."""
    async with context.database.transaction() as session:
        return await service.detail(session, reader.user_id, signal_id)
