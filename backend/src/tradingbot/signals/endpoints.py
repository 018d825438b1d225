"""GET /signals."""

from typing import Annotated

from fastapi import APIRouter, Query

from tradingbot.auth.dependencies import Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.signals import service
from tradingbot.signals.schemas import SignalPage

router = APIRouter(prefix="/signals", tags=["signals"])


@router.get("", responses=documented(401, 422, 503))
async def list_signals(
    context: ContextDep,
    reader: Reader,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> SignalPage:
    """Lists your signals, the newest first."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, limit, after)
