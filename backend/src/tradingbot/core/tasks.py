"""Background tasks: ending them, and not waiting for slow ones."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_PATIENCE = 0.25

ResultT = TypeVar("ResultT")
_abandoned: set[asyncio.Task[Any]] = set()


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancels the task until it has ended: a library in between may swallow one cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE)


async def within(seconds: float, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Gives the result of `work`, or gives up at once when the time is over.

    Unlike `asyncio.timeout`, this does not wait until `work` has cleaned up after its cancellation: closing a
    connection to a server that is silent takes seconds.

    Raises:
        TimeoutError: the time is over; `work` is cancelled and ends by itself.
    """
    task = asyncio.create_task(work)
    try:
        done, _pending = await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _abandoned.add(task)
            task.add_done_callback(_forget)
    if not done:
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()
