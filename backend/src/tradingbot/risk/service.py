"""Gathers what the rules look at, and stores what they refuse."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.events.service import EventType, record
from tradingbot.positions import service as positions
from tradingbot.positions.accounting import signed
from tradingbot.risk import halts, repository
from tradingbot.risk.evaluate import RefusalReason, RiskInput
from tradingbot.risk.halts_schemas import HaltOut, Reach
from tradingbot.risk.models import Halt
from tradingbot.risk.repository import DayResult, RefusalFilter
from tradingbot.risk.schemas import RefusalOut, RefusalPage
from tradingbot.risk.sizing import OrderIntent
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import Strategy

_MINUTE = timedelta(seconds=60)
_REASON_LENGTH = 500
_HALTED = {
    Reach.EVERYBODY: "new entries are halted for everybody",
    Reach.ALL: "all of your new entries are halted",
    Reach.STRATEGY: "new entries of the strategy are halted",
}


async def load_input(
    session: AsyncSession,
    strategy: Strategy,
    signal: Signal,
    intent: OrderIntent | None,
    price: Decimal | None,
    now: datetime,
    dust: Decimal = Decimal(0),
) -> RiskInput:
    """Gathers what `evaluate` needs; without an intent it asks for halt and switch alone.

    `now` says which day (UTC) it is; orders a minute go by the database's clock. A positive `price` is noted
    as the position's last known one. A position of less than `dust` counts as none.
    """
    halt = await halts.find(session, strategy.user_id, strategy.id)
    switches = RiskInput(
        symbol=signal.symbol,
        change=None,
        price=price,
        halt=_in_words(halt) if halt else None,
        strategy_active=strategy.is_active,
    )
    if intent is None:
        return switches
    if price is not None and price > 0:
        await positions.mark(session, strategy.id, signal.symbol, price, now)
    day, unrealised = DayResult(Decimal(0), Decimal(0)), Decimal(0)
    if strategy.max_daily_loss is not None:
        day = await repository.result_since(session, strategy.id, _start_of_day(now))
        unrealised = await positions.unrealised_of(session, strategy.id, signal.symbol, price)
    orders_last_minute = 0
    if strategy.max_orders_per_minute is not None:
        orders_last_minute = await repository.count_orders(session, strategy.id, _MINUTE)
    position = await positions.expected_quantity(session, strategy.id, signal.symbol)
    return replace(
        switches,
        change=signed(intent.side, intent.quantity),
        position=Decimal(0) if abs(position) < dust else position,
        symbols=tuple(strategy.symbols),
        max_position=strategy.max_position,
        max_order_value=strategy.max_order_value,
        max_daily_loss=strategy.max_daily_loss,
        max_orders_per_minute=strategy.max_orders_per_minute,
        realised_today=day.realised,
        fees_today=day.fees,
        unrealised=unrealised,
        orders_last_minute=orders_last_minute,
    )


async def store_refusal(session: AsyncSession, signal: Signal, refusal: RefusalReason) -> bool:
    """Stores why the signal is not traded, once; tells whether it was new.

    The signal's status is left to the caller.
    """
    stored = await repository.insert_once(
        session,
        signal.user_id,
        signal.strategy_id,
        signal.id,
        refusal.rule,
        refusal.reason[:_REASON_LENGTH],
    )
    if stored is None:
        return False
    shown = RefusalOut.of(stored, signal.symbol)
    await record(session, signal.user_id, EventType.REFUSAL, shown.model_dump(mode="json"))
    return True


async def list_page(
    session: AsyncSession, user_id: UUID, wanted: RefusalFilter, limit: int, after: Cursor | None
) -> RefusalPage:
    """Gives one page of the user's own refusals."""
    rows = await repository.list_of_user(session, user_id, wanted, limit + 1, after)
    items = [RefusalOut.of(refusal, symbol) for refusal, symbol in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return RefusalPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


def _in_words(halt: Halt) -> str:
    words = _HALTED[HaltOut.of(halt).reach]
    return f"{words}: {halt.reason}" if halt.reason else words


def _start_of_day(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
