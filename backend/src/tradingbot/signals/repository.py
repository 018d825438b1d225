"""Queries on signals, as their owners read them. They are written by `webhooks.repository`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.core.symbols import in_market
from tradingbot.inference.models import Prediction
from tradingbot.orders.models import Order
from tradingbot.risk.models import Refusal
from tradingbot.signals.models import Signal, SignalStatus


@dataclass(frozen=True)
class SignalFilter:
    """Which signals to list; None is any. `since` is in, `until` is not."""

    strategy_id: UUID | None = None
    symbol: str | None = None
    status: SignalStatus | None = None
    since: datetime | None = None
    until: datetime | None = None


class Outcome(NamedTuple):
    """A signal and what came of it."""

    signal: Signal
    order: Order | None
    refusal: Refusal | None
    prediction: Prediction | None


async def list_of_user(
    session: AsyncSession, user_id: UUID, wanted: SignalFilter, limit: int, after: Cursor | None
) -> Sequence[Signal]:
    """Gives the user's signals after the cursor, the newest first."""
    statement = select(Signal).where(Signal.user_id == user_id)
    if wanted.strategy_id is not None:
        statement = statement.where(Signal.strategy_id == wanted.strategy_id)
    if wanted.symbol is not None:
        statement = statement.where(in_market(Signal.symbol, wanted.symbol))
    if wanted.status is not None:
        statement = statement.where(Signal.status == wanted.status)
    if wanted.since is not None:
        statement = statement.where(Signal.received_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Signal.received_at < wanted.until)
    if after is not None:
        statement = statement.where(tuple_(Signal.received_at, Signal.id) < (after.at, after.id))
    statement = statement.order_by(Signal.received_at.desc(), Signal.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def outcome_of_user(session: AsyncSession, user_id: UUID, signal_id: UUID) -> Outcome | None:
    """Gives the user's signal with its order, refusal and prediction; None if the user has no such signal."""
    statement = (
        select(Signal, Order, Refusal, Prediction)
        .outerjoin(Order, Order.signal_id == Signal.id)
        .outerjoin(Refusal, Refusal.signal_id == Signal.id)
        .outerjoin(Prediction, Prediction.signal_id == Signal.id)
        .where(Signal.id == signal_id, Signal.user_id == user_id)
    )
    row = (await session.execute(statement)).one_or_none()
    return Outcome(*row) if row else None
