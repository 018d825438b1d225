"""Queries on what a paper account's strategies hold, and on what it has filled and not booked yet."""

from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tradingbot.core.symbols import in_market, market_in
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.orders.models import OPEN_LITERALLY, Order, Side
from tradingbot.positions.models import Position
from tradingbot.strategies.models import Strategy


class Purse(NamedTuple):
    """What became of an account's money, in the quote asset, at the last known prices.

    `result`: realised and unrealised P&L after fees; `tied`: the worth of what is held, long or short;
    `spent`: the worth of orders that open something, are filled and not booked yet, before fees.
    """

    result: Decimal
    tied: Decimal
    spent: Decimal


async def lock_account(session: AsyncSession, account_id: UUID) -> None:
    """Keep others from filling orders on the account until the transaction ends; orders can be made."""
    statement = select(ExchangeAccount.id).where(ExchangeAccount.id == account_id)
    await session.execute(statement.with_for_update(key_share=True))


async def purse(
    session: AsyncSession,
    user_id: UUID,
    account_id: UUID,
    *,
    is_default: bool,
    symbol: str = "",
    price: Decimal = Decimal(0),
) -> Purse:
    """Return what became of the account's money. One statement sees each fill once: booked, or not yet.

    What is held in the market of `symbol`, if that is given, is worth `price`.
    """
    held = aliased(Position)
    is_against = func.sign(held.quantity) == case((Order.side == Side.SELL, 1), else_=-1)
    # What of it closes is no longer tied.
    freed = case((is_against, 2 * func.least(func.abs(held.quantity), Order.quantity)), else_=0)
    spent = (
        select(_sum((Order.quantity - freed) * Order.average_price))
        .outerjoin(
            held,
            and_(held.strategy_id == Order.strategy_id, market_in(held.symbol) == market_in(Order.symbol)),
        )
        .where(
            Order.exchange_account_id == account_id,
            Order.state.in_(OPEN_LITERALLY),
            Order.filled_quantity == 0,
            Order.average_price.is_not(None),
            ~Order.reduce_only,
        )
    )
    last_price = case((in_market(Position.symbol, symbol), price), else_=Position.last_price)
    unrealised = Position.quantity * (last_price - Position.average_price)
    statement = (
        select(
            _sum(Position.realised_pnl - Position.fees + unrealised),
            _sum(func.abs(Position.quantity) * last_price),
            spent.scalar_subquery(),
        )
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.user_id == user_id, _trades_on(account_id, is_default))
    )
    result, tied, is_spent = (await session.execute(statement)).one()
    return Purse(result, tied, is_spent)


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


def _sum(amounts: ColumnElement[Decimal]) -> ColumnElement[Decimal]:
    return func.coalesce(func.sum(amounts), Decimal(0))
