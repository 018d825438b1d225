"""One transaction for a command."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.database import Database
from tradingbot.core.settings import DatabaseSettings

ResultT = TypeVar("ResultT")


def in_transaction(settings: DatabaseSettings, work: Callable[[AsyncSession], Awaitable[ResultT]]) -> ResultT:
    """Does `work` in a transaction and gives its result.

    Raises:
        UnavailableError: PostgreSQL does not answer.
    """
    return asyncio.run(_run(settings, work))


async def _run(settings: DatabaseSettings, work: Callable[[AsyncSession], Awaitable[ResultT]]) -> ResultT:
    database = Database(settings)
    try:
        async with database.transaction() as session:
            return await work(session)
    finally:
        await database.close()
