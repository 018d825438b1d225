"""POST /webhooks/tradingview/{token}."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response

from tradingbot.core.body import read_body
from tradingbot.core.context import get_context
from tradingbot.core.direct_route import DirectEndpoint
from tradingbot.core.errors import ProblemError
from tradingbot.core.metrics import SIGNALS_RECEIVED
from tradingbot.core.models import utc_now
from tradingbot.core.problems import documented
from tradingbot.webhooks import service
from tradingbot.webhooks.parsing import parse_alert
from tradingbot.webhooks.schemas import Alert, Receipt

_STATUS = {"accepted": HTTPStatus.ACCEPTED, "duplicate": HTTPStatus.OK}
_PROBLEMS = {403: "forbidden", 404: "unknown", 413: "too_large", 422: "invalid", 503: "unavailable"}
_OUTCOMES = (*_STATUS, *_PROBLEMS.values(), "stale")
_RECEIVED = {outcome: SIGNALS_RECEIVED.labels(outcome) for outcome in _OUTCOMES}


async def receive_alert(request: Request) -> Response:
    """Stores an alert, and answers once it is committed: 202 for a new one, 200 for one already stored."""
    received_at = utc_now()
    context = get_context(request)
    token = request.path_params["token"]
    try:
        service.require_well_formed(token)
        body = await read_body(request, context.settings.webhook_max_bytes)
        receipt = await service.receive(
            context.intake, token, parse_alert(body), received_at, context.settings
        )
    except ProblemError as error:
        _RECEIVED["stale" if isinstance(error, service.StaleError) else _PROBLEMS[error.status]].inc()
        if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
            context.rejections.note(token, error, received_at)
        raise
    _RECEIVED[receipt.status].inc()
    shown: dict[str, Any] = {"id": str(receipt.id), "status": receipt.status}
    if receipt.notes:
        shown["notes"] = receipt.notes
    return Response(json.dumps(shown), _STATUS[receipt.status], media_type="application/json")


_TOKEN = {
    "name": "token",
    "in": "path",
    "required": True,
    "description": "Shown once, when the strategy is made or its token rotated.",
    "schema": {"type": "string", "maxLength": 200},
}
# What it refers to is in the document already: signals have it, too.
_ALERT = Alert.model_json_schema(ref_template="#/components/schemas/{model}")
del _ALERT["$defs"]
_BODY = {
    "required": True,
    "description": "JSON, whatever its content type.",
    "content": {"application/json": {"schema": _ALERT}},
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Receipt, "description": "Already stored"},
    **documented(400, 403, 404, 413, 422, 503),
}

direct = [
    DirectEndpoint(
        "/webhooks/tradingview/{token}",
        receive_alert,
        {
            "methods": ["POST"],
            "status_code": HTTPStatus.ACCEPTED,
            "response_model": Receipt,
            "responses": _RESPONSES,
            "tags": ["webhooks"],
            "openapi_extra": {"parameters": [_TOKEN], "requestBody": _BODY},
        },
    )
]
