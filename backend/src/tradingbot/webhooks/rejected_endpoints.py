"""GET /rejected-alerts."""

from uuid import UUID

from fastapi import APIRouter

from tradingbot.auth.dependencies import Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.pagination import Cursor, decode_cursor, encode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit
from tradingbot.webhooks import rejections
from tradingbot.webhooks.schemas import RejectedAlertOut, RejectedAlertPage

router = APIRouter(tags=["webhooks"])


@router.get("/rejected-alerts", responses=documented(401, 403, 422, 503))
async def list_rejected_alerts(
    context: ContextDep,
    reader: Reader,
    strategy_id: UUID | None = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> RejectedAlertPage:
    """Lists alerts to your addresses that were answered with an error, by their reason, the newest first.

    TradingView does not show answers; here they are: for each strategy the newest 50 reasons, how often, and
    when last. What was in the alerts is not kept.
    """
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        rows = await rejections.list_of_user(session, reader.user_id, strategy_id, limit + 1, after)
    items = [RejectedAlertOut.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return RejectedAlertPage(
        items=items, next_cursor=encode_cursor(Cursor(last.last_at, last.id)) if last else None
    )
