"""Queries on the outbox."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.outbox.models import OutboxRow, Task

# PostgreSQL channel that wakes workers.
CHANNEL = "tradingbot_outbox"


async def add(
    session: AsyncSession,
    task: Task,
    strategy_id: UUID,
    *,
    signal_id: UUID | None = None,
    order_id: UUID | None = None,
) -> None:
    """Queues work; workers are woken when the transaction is committed."""
    values = {"task": task, "strategy_id": strategy_id, "signal_id": signal_id, "order_id": order_id}
    await session.execute(insert(OutboxRow).values(values))
    await session.execute(text(f"NOTIFY {CHANNEL}"))
