"""The WebSocket /ws, the tickets for it, and GET /events."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Response, WebSocket, status

from tradingbot.auth.dependencies import Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.errors import ProblemError, UnprocessableError
from tradingbot.core.problems import documented, problem_from
from tradingbot.events import service, tickets
from tradingbot.events.schemas import PROTOCOL, TICKET_PREFIX, EventPage, TicketOut

router = APIRouter(tags=["events"])
log = structlog.stdlib.get_logger("tradingbot.events")

_LARGEST = 2**63 - 1


@router.post("/ws/tickets", status_code=status.HTTP_201_CREATED, responses=documented(401, 403, 503))
async def make_ticket(context: ContextDep, response: Response, reader: Reader) -> TicketOut:
    """Makes a ticket that opens one WebSocket connection: `new WebSocket(".../api/v1/ws", protocols)`."""
    settings = context.settings
    seconds = settings.websocket_ticket_seconds
    ticket = await tickets.issue(context.redis, reader, settings.secret_key.get_secret_value(), seconds)
    response.headers["Cache-Control"] = "no-store"
    return TicketOut(ticket=ticket, protocols=[PROTOCOL, f"{TICKET_PREFIX}{ticket}"], expires_in=seconds)


@router.get("/events", responses=documented(401, 403, 410, 422, 503))
async def list_events(
    context: ContextDep,
    reader: Reader,
    after: Annotated[
        int | None, Query(ge=0, le=_LARGEST, description="The last number that you have.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> EventPage:
    """Gives your events after a number, the oldest first; without `after` only the number to begin with.

    410 says that these events are not kept any more: load what you show anew and go on after the `next_after`
    in the answer.
    """
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, after, limit)


@router.websocket("/ws")
async def live_events(websocket: WebSocket, context: ContextDep) -> None:
    """Sends `ready`, then the user's events after the query's `after` (or from now) as they happen."""
    try:
        after = _after(websocket.query_params.get("after"))
        holder = await tickets.redeem(
            context.redis, _ticket(websocket), context.settings.secret_key.get_secret_value()
        )
        with context.hub.connect(holder) as connection:
            async with context.database.transaction() as session:
                last = await service.start_of(session, holder)
            context.hub.begin(holder.user_id, last)
            await websocket.accept(PROTOCOL)
            await connection.serve(websocket, last if after is None else after, last)
    except ProblemError as error:
        await websocket.send_denial_response(problem_from(error))


def _ticket(websocket: WebSocket) -> str:
    offered: list[str] = websocket.scope["subprotocols"]
    given = [name.removeprefix(TICKET_PREFIX) for name in offered if name.startswith(TICKET_PREFIX)]
    if PROTOCOL not in offered or len(given) != 1:
        raise tickets.unauthorized()
    return given[0]


def _after(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= _LARGEST):
        raise UnprocessableError("`after` must be the number of an event.")
    return int(text)
