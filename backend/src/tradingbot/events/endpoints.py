"""The WebSocket /ws."""

import asyncio
import contextlib

import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from tradingbot.auth.dependencies import authenticate
from tradingbot.core.context import ContextDep
from tradingbot.core.errors import ProblemError
from tradingbot.core.problems import problem_from
from tradingbot.events.hub import Subscription

router = APIRouter(tags=["events"])
log = structlog.stdlib.get_logger("tradingbot.events")

_READY = '{"type":"ready"}'
_TRY_AGAIN_LATER = 1013


@router.websocket("/ws")
async def live_events(websocket: WebSocket, context: ContextDep) -> None:
    """Sends the user's events as they happen, after one message `{"type":"ready"}`.

    The API key comes in the header X-API-Key of the handshake. What the client sends is ignored. A client
    that does not keep up is closed with 1013; at a shutdown all are closed with 1012.
    """
    try:
        user_id = (await authenticate(context, websocket)).user_id
    except ProblemError as error:
        await websocket.send_denial_response(problem_from(error))
        return
    await websocket.accept()
    subscription = context.hub.subscribe(user_id)
    try:
        await context.hub.wait_connected()
        await websocket.send_text(_READY)
        await _serve(websocket, subscription)
    except WebSocketDisconnect:
        pass
    finally:
        context.hub.unsubscribe(subscription)


async def _serve(websocket: WebSocket, subscription: Subscription) -> None:
    tasks = [
        asyncio.create_task(_send(websocket, subscription)),
        asyncio.create_task(_ignore_input(websocket)),
        asyncio.create_task(subscription.overflowed.wait()),
    ]
    try:
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if subscription.overflowed.is_set() and tasks[2] in done:
        log.info("a client does not keep up and is dropped")
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            await asyncio.wait_for(websocket.close(_TRY_AGAIN_LATER, "too slow"), 1)
        return
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


async def _send(websocket: WebSocket, subscription: Subscription) -> None:
    while True:
        await websocket.send_text(await subscription.queue.get())


async def _ignore_input(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
