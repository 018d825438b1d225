"""Queries on what the rules look at, and on refusals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.core.symbols import in_market
from tradingbot.orders.client_order_id import PART
from tradingbot.orders.models import Fill, Order
from tradingbot.risk.models import Refusal, Rule
from tradingbot.signals.models import Signal


class DayResult(NamedTuple):
    """What fills realised before fees, and their fees, in the quote asset."""

    realised: Decimal
    fees: Decimal


@dataclass(frozen=True)
class RefusalFilter:
    """Which refusals to list; None is any. `since` is in, `until` is not."""

    strategy_id: UUID | None = None
    symbol: str | None = None
    rule: Rule | None = None
    since: datetime | None = None
    until: datetime | None = None


async def result_since(session: AsyncSession, strategy_id: UUID, since: datetime) -> DayResult:
    """Adds up the strategy's fills from `since` on."""
    statement = select(
        func.coalesce(func.sum(Fill.realised_pnl), Decimal(0)), func.coalesce(func.sum(Fill.fee), Decimal(0))
    ).where(Fill.strategy_id == strategy_id, Fill.filled_at >= since)
    realised, fees = (await session.execute(statement)).one()
    return DayResult(realised, fees)


async def count_orders(session: AsyncSession, strategy_id: UUID, window: timedelta) -> int:
    """Counts the orders that the strategy made in the last `window`, by the database's clock.

    An exit that goes by several orders is one.
    """
    statement = select(func.count()).where(
        Order.strategy_id == strategy_id,
        Order.created_at > func.clock_timestamp() - window,
        ~Order.client_order_id.contains(PART),
        # Never sent, and settled: the correction of a position.
        ~(Order.settled_at.is_not(None) & (Order.attempts == 0)),
    )
    return (await session.execute(statement)).scalar_one()


async def insert_once(
    session: AsyncSession, user_id: UUID, strategy_id: UUID, signal_id: UUID, rule: Rule, reason: str
) -> Refusal | None:
    """Stores a refusal; gives None if the signal has one."""
    statement = insert(Refusal).values(
        user_id=user_id, strategy_id=strategy_id, signal_id=signal_id, rule=rule, reason=reason
    )
    statement = statement.on_conflict_do_nothing(index_elements=["signal_id"])
    return (await session.execute(statement.returning(Refusal))).scalar_one_or_none()


async def list_of_user(
    session: AsyncSession, user_id: UUID, wanted: RefusalFilter, limit: int, after: Cursor | None
) -> Sequence[tuple[Refusal, str]]:
    """Gives the user's refusals after the cursor with the symbols of their signals, the newest first."""
    statement = (
        select(Refusal, Signal.symbol)
        .join(Signal, Signal.id == Refusal.signal_id)
        .where(Refusal.user_id == user_id)
    )
    if wanted.strategy_id is not None:
        statement = statement.where(Refusal.strategy_id == wanted.strategy_id)
    if wanted.symbol is not None:
        statement = statement.where(in_market(Signal.symbol, wanted.symbol))
    if wanted.rule is not None:
        statement = statement.where(Refusal.rule == wanted.rule)
    if wanted.since is not None:
        statement = statement.where(Refusal.created_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(Refusal.created_at < wanted.until)
    if after is not None:
        statement = statement.where(tuple_(Refusal.created_at, Refusal.id) < (after.at, after.id))
    statement = statement.order_by(Refusal.created_at.desc(), Refusal.id.desc()).limit(limit)
    return (await session.execute(statement)).all()
