"""Queries on strategies. A user sees only their own."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.exchanges.models import ExchangeAccount, Market, Mode
from tradingbot.orders.models import OPEN_STATES, Order
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions.models import Position
from tradingbot.strategies.models import Strategy

NAME_CONSTRAINT = "uq_strategies_user_id_name"


async def find(
    session: AsyncSession, user_id: UUID, strategy_id: UUID, *, change: bool = False, remove: bool = False
) -> Strategy | None:
    """Gives the user's strategy: to `change` it locked against changes, to `remove` it against any use."""
    statement = select(Strategy).where(Strategy.user_id == user_id, Strategy.id == strategy_id)
    if change or remove:
        # Signals and orders that refer to the strategy are stored beside a change of it.
        statement = statement.with_for_update(key_share=not remove)
    return (await session.execute(statement)).scalar_one_or_none()


async def find_by_name(session: AsyncSession, user_id: UUID, name: str) -> Strategy | None:
    """Gives the user's strategy of this name, locked against other changes."""
    statement = select(Strategy).where(Strategy.user_id == user_id, Strategy.name == name)
    return (await session.execute(statement.with_for_update(key_share=True))).scalar_one_or_none()


async def list_of_user(
    session: AsyncSession, user_id: UUID, limit: int | None, after: Cursor | None
) -> Sequence[Strategy]:
    """Gives the user's strategies after the cursor, the newest first."""
    statement = select(Strategy).where(Strategy.user_id == user_id)
    if after is not None:
        statement = statement.where(tuple_(Strategy.created_at, Strategy.id) < (after.at, after.id))
    statement = statement.order_by(Strategy.created_at.desc(), Strategy.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def keep_account(session: AsyncSession, user_id: UUID, account_id: UUID) -> bool:
    """Tells whether the user has this exchange account, and keeps it from being deleted until the commit."""
    statement = select(ExchangeAccount.id).where(
        ExchangeAccount.user_id == user_id, ExchangeAccount.id == account_id
    )
    statement = statement.with_for_update(read=True, key_share=True)
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def neighbours_on_futures(
    session: AsyncSession, account_id: UUID, strategy_id: UUID | None
) -> Sequence[Strategy]:
    """Return the other active strategies of a real futures account; of any other account none.

    Nobody else asks until the transaction ends.
    """
    account = select(ExchangeAccount.id).where(
        ExchangeAccount.id == account_id,
        ExchangeAccount.market == Market.FUTURE,
        ExchangeAccount.mode != Mode.PAPER,
    )
    if (await session.execute(account.with_for_update(key_share=True))).first() is None:
        return []
    statement = select(Strategy).where(Strategy.exchange_account_id == account_id, Strategy.is_active)
    if strategy_id is not None:
        statement = statement.where(Strategy.id != strategy_id)
    return (await session.execute(statement.order_by(Strategy.created_at))).scalars().all()


async def has_order(session: AsyncSession, strategy_id: UUID) -> bool:
    """Tells whether the strategy ever made an order."""
    return await _exists(session, Order.strategy_id == strategy_id)


async def has_work(session: AsyncSession, strategy_id: UUID) -> bool:
    """Tells whether the worker has still to do something for the strategy."""
    return await _exists(session, OutboxRow.strategy_id == strategy_id)


async def holds_something(session: AsyncSession, strategy_id: UUID) -> bool:
    """Tells whether the strategy has a position or an order that is open."""
    position = exists().where(Position.strategy_id == strategy_id, ~Position.is_flat)
    order = exists().where(Order.strategy_id == strategy_id, Order.state.in_(OPEN_STATES))
    return bool((await session.execute(select(or_(position, order)))).scalar_one())


async def drop_dust(session: AsyncSession, strategy_id: UUID) -> Sequence[Position]:
    """Take dust from the strategy's positions, and return them: it is less than the market's least order."""
    statement = (
        update(Position)
        .where(Position.strategy_id == strategy_id, Position.quantity != 0, Position.is_flat)
        .values(quantity=0, average_price=0, updated_at=func.clock_timestamp())
        .returning(Position)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalars().all()


async def remove(session: AsyncSession, strategy_id: UUID) -> None:
    """Deletes the strategy, and its signals with it."""
    await session.execute(delete(Strategy).where(Strategy.id == strategy_id))


async def _exists(session: AsyncSession, condition: ColumnElement[bool]) -> bool:
    return bool((await session.execute(select(exists().where(condition)))).scalar_one())
