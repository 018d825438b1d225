"""GET /refusals."""

from uuid import UUID

from fastapi import APIRouter

from tradingbot.auth.dependencies import Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit, Since, SymbolFilter, Until
from tradingbot.risk import service
from tradingbot.risk.models import Rule
from tradingbot.risk.repository import RefusalFilter
from tradingbot.risk.schemas import RefusalPage

router = APIRouter(prefix="/refusals", tags=["risk"])


@router.get("", responses=documented(401, 403, 422, 503))
async def list_refusals(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    symbol: SymbolFilter = None,
    rule: Rule | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> RefusalPage:
    """Lists your signals that were not traded, and why, the newest first."""
    wanted = RefusalFilter(strategy_id, symbol, rule, since, until)
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, wanted, limit, after)
