"""POST /webhooks/tradingview/{token}."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, status

from tradingbot.core.body import read_body
from tradingbot.core.context import Context, ContextDep
from tradingbot.core.errors import UnavailableError
from tradingbot.core.problems import documented
from tradingbot.core.tasks import within
from tradingbot.events.schemas import signal_event
from tradingbot.webhooks import service
from tradingbot.webhooks.parsing import ParsedAlert, parse_alert
from tradingbot.webhooks.schemas import Alert, Receipt

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Receipt, "description": "Already stored"},
    **documented(403, 404, 413, 422, 503),
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "JSON, whatever its content type.",
        "content": {"application/json": {"schema": Alert.model_json_schema()}},
    }
}


@router.post(
    "/tradingview/{token}",
    status_code=status.HTTP_202_ACCEPTED,
    responses=_RESPONSES,
    openapi_extra=_BODY,
)
async def receive_alert(
    context: ContextDep,
    request: Request,
    response: Response,
    token: Annotated[str, Path(max_length=200, description="From `tradingbot strategy create`.")],
) -> Receipt:
    """Stores an alert, and answers once it is committed: 202 for a new one, 200 for one already stored."""
    service.require_well_formed(token)
    body = await read_body(request, context.settings.webhook_max_bytes)
    parsed = parse_alert(body)
    service.check_secret(parsed.alert.secret, context.settings.webhook_secret.get_secret_value())
    try:
        outcome = await within(context.settings.webhook_timeout, _store(context, token, parsed))
    except TimeoutError:
        raise UnavailableError("The database took too long.") from None
    if outcome.signal is None:
        response.status_code = status.HTTP_200_OK
    else:
        context.publisher.publish(signal_event(outcome.strategy.user_id, outcome.signal))
    return outcome.receipt


async def _store(context: Context, token: str, parsed: ParsedAlert) -> service.Outcome:
    settings = context.settings
    async with context.database.transaction() as session:
        return await service.receive(
            session, token, parsed, settings.secret_key.get_secret_value(), settings.webhook_dedup_window
        )
