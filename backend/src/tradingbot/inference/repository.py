"""Queries on predictions, and on the alerts that they are made from."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.symbols import in_market
from tradingbot.inference.models import Prediction
from tradingbot.signals.models import Signal


async def last_alerts(session: AsyncSession, signal: Signal, count: int) -> Sequence[Signal]:
    """Return the last `count` signals of the strategy's market up to this one, the oldest first."""
    statement = (
        select(Signal)
        # The user is that of the strategy: named, because the index by time begins with it.
        .where(Signal.user_id == signal.user_id)
        .where(Signal.strategy_id == signal.strategy_id, in_market(Signal.symbol, signal.symbol))
        .where(tuple_(Signal.received_at, Signal.id) <= (signal.received_at, signal.id))
        .order_by(Signal.received_at.desc(), Signal.id.desc())
        .limit(count)
    )
    return list(reversed((await session.execute(statement)).scalars().all()))


async def insert_once(session: AsyncSession, values: dict[str, Any]) -> bool:
    """Stores a prediction; gives False if the signal has one."""
    statement = insert(Prediction).values(values).on_conflict_do_nothing(index_elements=["signal_id"])
    return (await session.execute(statement.returning(Prediction.id))).scalar_one_or_none() is not None


async def find(session: AsyncSession, signal_id: UUID) -> Prediction | None:
    """Gives the prediction of a signal."""
    return (
        await session.execute(select(Prediction).where(Prediction.signal_id == signal_id))
    ).scalar_one_or_none()
