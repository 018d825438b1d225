"""Queries on exchange accounts. A user sees only their own."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from sqlalchemy import delete, exists, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.pagination import Cursor
from tradingbot.exchanges.models import PAPER, ExchangeAccount, Market, Mode
from tradingbot.orders.models import Order
from tradingbot.positions.models import Position
from tradingbot.strategies.models import Strategy

NAME_CONSTRAINT = "uq_exchange_accounts_user_id_name"


async def find(
    session: AsyncSession, user_id: UUID, account_id: UUID, *, lock: bool = False
) -> ExchangeAccount | None:
    """Gives the user's account; with `lock` nobody else changes or uses it until the transaction ends."""
    statement = select(ExchangeAccount).where(
        ExchangeAccount.user_id == user_id, ExchangeAccount.id == account_id
    )
    if lock:
        statement = statement.with_for_update()
    return (await session.execute(statement)).scalar_one_or_none()


async def find_by_name(session: AsyncSession, user_id: UUID, name: str) -> ExchangeAccount | None:
    """Gives the user's account of this name."""
    statement = select(ExchangeAccount).where(
        ExchangeAccount.user_id == user_id, ExchangeAccount.name == name
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def find_default(session: AsyncSession, user_id: UUID) -> ExchangeAccount | None:
    """Gives the user's default account."""
    statement = select(ExchangeAccount).where(ExchangeAccount.user_id == user_id, ExchangeAccount.is_default)
    return (await session.execute(statement)).scalar_one_or_none()


async def held(session: AsyncSession, account_id: UUID) -> Sequence[tuple[str, Decimal]]:
    """Return symbols and signed quantities of what the account's strategies hold, by the book."""
    statement = (
        select(Position.symbol, Position.quantity)
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.exchange_account_id == account_id, Position.quantity != 0)
    )
    return [(symbol, quantity) for symbol, quantity in await session.execute(statement)]


async def insert_default(session: AsyncSession, user_id: UUID, name: str) -> None:
    """Stores a default account of this name, unless there is one or the name is taken."""
    values = {
        "user_id": user_id,
        "name": name,
        "exchange": PAPER,
        "market": Market.FUTURE,
        "mode": Mode.PAPER,
        "is_default": True,
    }
    await session.execute(insert(ExchangeAccount).values(values).on_conflict_do_nothing())


async def list_of_user(
    session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None
) -> Sequence[ExchangeAccount]:
    """Gives the user's accounts after the cursor, the newest first."""
    statement = select(ExchangeAccount).where(ExchangeAccount.user_id == user_id)
    if after is not None:
        place = tuple_(ExchangeAccount.created_at, ExchangeAccount.id)
        statement = statement.where(place < (after.at, after.id))
    statement = statement.order_by(ExchangeAccount.created_at.desc(), ExchangeAccount.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def has_strategy(session: AsyncSession, account_id: UUID) -> bool:
    """Tells whether a strategy trades on the account."""
    statement = select(exists().where(Strategy.exchange_account_id == account_id))
    return bool((await session.execute(statement)).scalar_one())


async def has_order(session: AsyncSession, account_id: UUID) -> bool:
    """Tells whether an order was ever made on the account."""
    statement = select(exists().where(Order.exchange_account_id == account_id))
    return bool((await session.execute(statement)).scalar_one())


async def remove(session: AsyncSession, account_id: UUID) -> None:
    """Deletes the account."""
    await session.execute(delete(ExchangeAccount).where(ExchangeAccount.id == account_id))


async def with_credentials(
    session: AsyncSession, after: UUID, limit: int, *, lock: bool
) -> Sequence[ExchangeAccount]:
    """Gives the accounts of all users that have credentials, in the order of their ids; for key rotation."""
    statement = (
        select(ExchangeAccount)
        .where(ExchangeAccount.key_envelope.is_not(None), ExchangeAccount.id > after)
        .order_by(ExchangeAccount.id)
        .limit(limit)
    )
    if lock:
        statement = statement.with_for_update(key_share=True)
    return (await session.execute(statement)).scalars().all()
