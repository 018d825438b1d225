"""Queries on what a paper account's strategies hold."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.symbols import in_market
from tradingbot.positions.models import Position
from tradingbot.strategies.models import Strategy


async def positions(
    session: AsyncSession, user_id: UUID, account_id: UUID, *, is_default: bool
) -> Sequence[Position]:
    """Gives the positions of the strategies that trade on the account, closed ones too."""
    statement = (
        select(Position)
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.user_id == user_id, _trades_on(account_id, is_default))
    )
    return (await session.execute(statement)).scalars().all()


async def holding(
    session: AsyncSession, user_id: UUID, account_id: UUID, symbol: str, *, is_default: bool
) -> Decimal:
    """Gives the signed sum of what the strategies that trade on the account hold of the symbol."""
    statement = (
        select(func.sum(Position.quantity))
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(
            Strategy.user_id == user_id,
            _trades_on(account_id, is_default),
            in_market(Position.symbol, symbol),
        )
    )
    return (await session.execute(statement)).scalar_one() or Decimal(0)


def _trades_on(account_id: UUID, is_default: bool) -> ColumnElement[bool]:
    trades_on = Strategy.exchange_account_id == account_id
    return or_(trades_on, Strategy.exchange_account_id.is_(None)) if is_default else trades_on
