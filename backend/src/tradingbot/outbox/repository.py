"""Queries on the outbox."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.symbols import market_of
from tradingbot.outbox.models import OutboxRow, Priority, Task

# PostgreSQL channel that wakes workers.
CHANNEL = "tradingbot_outbox"
_CLAIM_ROUNDS = 3

# The oldest row of each strategy, priority and market, found by skipping from one to the next in the index:
# the cost is that of their number, not of the number of rows. Only such a row is worked on, so an exit that
# does not get out, or an order of unknown fate, keeps back its own market and no other. What is urgent goes
# first, and waits for nothing that is not; then who has waited longest: by their ids, a row that comes back
# at once would keep all younger ones back. A row without a symbol is of a version that did not know it: it
# keeps back all later ones of its strategy, and waits for all earlier ones.
_DUE = """
    WITH RECURSIVE heads AS (
        (
            SELECT strategy_id, priority, symbol, id, available_at FROM outbox WHERE {first}
            ORDER BY strategy_id, priority, symbol, id LIMIT 1
        )
        UNION ALL
        SELECT following.* FROM heads CROSS JOIN LATERAL (
            SELECT strategy_id, priority, symbol, id, available_at FROM outbox WHERE {following}
            ORDER BY strategy_id, priority, symbol, id LIMIT 1
        ) AS following
    ), due AS (
        SELECT strategy_id, priority, id FROM heads
        WHERE available_at <= now()
            -- Not EXISTS, for which the planner may read the whole table once.
            AND (
                priority = 0 OR (
                    SELECT earlier.id FROM outbox AS earlier
                    WHERE earlier.strategy_id = heads.strategy_id AND earlier.priority = 1
                        AND earlier.symbol = '' AND earlier.id < heads.id AND earlier.available_at > now()
                    ORDER BY earlier.strategy_id, earlier.priority, earlier.symbol, earlier.id LIMIT 1
                ) IS NULL
            )
            AND (
                symbol <> '' OR NOT EXISTS (
                    SELECT FROM heads AS earlier
                    WHERE earlier.strategy_id = heads.strategy_id
                        AND earlier.id < heads.id AND earlier.available_at > now()
                )
            )
        ORDER BY
            priority,
            CASE WHEN NOT EXISTS (
                SELECT FROM heads AS unnamed
                WHERE unnamed.strategy_id = heads.strategy_id AND unnamed.symbol = ''
            ) THEN available_at END NULLS FIRST,
            id
        OFFSET 0
    )
    {take}
"""
_LOCK_A_STRATEGY = text(
    _DUE.format(
        first="true",
        following="(strategy_id, priority, symbol) > (heads.strategy_id, heads.priority, heads.symbol)",
        # Row by row, from the oldest on, and only until one lock is got: OFFSET 0 keeps the planner from
        # trying it earlier.
        take="""
            SELECT strategy_id FROM due
            WHERE pg_try_advisory_xact_lock(hashtextextended('outbox:' || strategy_id, 0)) LIMIT 1
        """,
    )
)
_OLDEST = text(
    _DUE.format(
        first="strategy_id = :strategy_id",
        following="strategy_id = :strategy_id AND (priority, symbol) > (heads.priority, heads.symbol)",
        take="SELECT id FROM due LIMIT 1",
    )
)


class Backlog(NamedTuple):
    """How many rows there are, and for how long the oldest that is due has waited (seconds)."""

    rows: int
    oldest: float


async def add(
    session: AsyncSession,
    task: Task,
    strategy_id: UUID,
    symbol: str,
    *,
    signal_id: UUID | None = None,
    order_id: UUID | None = None,
    priority: Priority = Priority.NORMAL,
) -> None:
    """Queues work; workers are woken when the transaction is committed."""
    values = {
        "task": task,
        "strategy_id": strategy_id,
        "symbol": market_of(symbol),
        "priority": priority,
        "signal_id": signal_id,
        "order_id": order_id,
    }
    await session.execute(insert(OutboxRow).values(values))
    await session.execute(text(f"NOTIFY {CHANNEL}"))


async def claim(session: AsyncSession) -> OutboxRow | None:
    """Takes the row that has waited longest, of a strategy that nobody works for; None if there is none.

    A row is taken when it is due and the oldest of its strategy, priority and symbol; urgent ones go first.

    The row is taken for as long as this transaction lasts, and with it the strategy: an older row that is
    committed later than a newer one waits until the newer one is done, rather than being worked on beside it.
    """
    for _ in range(_CLAIM_ROUNDS):
        async with session.begin_nested() as attempt:
            strategy_id = (await session.execute(_LOCK_A_STRATEGY)).scalar_one_or_none()
            if strategy_id is None:
                return None
            row = await _lock_oldest(session, strategy_id)
            if row is not None:
                return row
            # Somebody finished or postponed the row in between: we have its strategy locked for nothing, and
            # would keep it from others for as long as the work on another one takes.
            await attempt.rollback()
    return None


async def _lock_oldest(session: AsyncSession, strategy_id: UUID) -> OutboxRow | None:
    # A statement of its own sees what others have committed before we got the strategy.
    oldest = (await session.execute(_OLDEST, {"strategy_id": strategy_id})).scalar_one_or_none()
    statement = select(OutboxRow).where(OutboxRow.id == oldest, OutboxRow.available_at <= func.now())
    return (await session.execute(statement.with_for_update(skip_locked=True))).scalar_one_or_none()


async def finish(session: AsyncSession, row_id: int) -> None:
    """Removes a row whose work is done."""
    await session.execute(delete(OutboxRow).where(OutboxRow.id == row_id))


async def postpone(session: AsyncSession, row_id: int, seconds: float, attempts: int, error: str) -> None:
    """Lets a row, and with it the later ones of its strategy and symbol, wait for `seconds`."""
    due = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    await session.execute(
        update(OutboxRow)
        .where(OutboxRow.id == row_id)
        .values(available_at=due, attempts=attempts, last_error=error[:500])
    )


async def hurry(session: AsyncSession, strategy_id: UUID) -> None:
    """Let what waits for another attempt be worked on now; what is being worked on is left alone."""
    waiting = select(OutboxRow.id).where(
        OutboxRow.strategy_id == strategy_id, OutboxRow.available_at > func.now()
    )
    waiting = waiting.with_for_update(skip_locked=True)
    await session.execute(update(OutboxRow).where(OutboxRow.id.in_(waiting)).values(available_at=func.now()))


async def backlog(session: AsyncSession) -> Backlog:
    """Counts what waits or is worked on."""
    age = func.extract("epoch", func.now() - func.min(OutboxRow.available_at))
    rows, oldest = (await session.execute(select(func.count(), age).select_from(OutboxRow))).one()
    return Backlog(rows, max(float(oldest or 0), 0.0))
