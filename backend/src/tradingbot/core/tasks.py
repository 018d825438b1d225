"""Ending background tasks."""

import asyncio
from typing import Any

_PATIENCE = 0.25


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancels the task until it has ended: a library in between may swallow one cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE)
