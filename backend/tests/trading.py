"""Rows of the trading tables, made as short as tests want to say them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from secrets import token_hex
from typing import Any
from uuid import UUID

from sqlalchemy import select

from tests.conftest import Account
from tradingbot.core.database import Database
from tradingbot.exchanges.base import Trade
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.orders.models import Order, Side
from tradingbot.positions import service as positions
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SYMBOL = "BTCUSDT"


@dataclass(frozen=True)
class Desk:
    """A strategy with a paper account, and the database that its rows are in."""

    database: Database
    user_id: UUID
    strategy_id: UUID
    exchange_account_id: UUID

    async def change(self, **values: Any) -> Strategy:
        """Changes the strategy, and gives it."""
        async with self.database.transaction() as session:
            strategy = await session.get_one(Strategy, self.strategy_id)
            for name, value in values.items():
                setattr(strategy, name, value)
            return strategy

    async def order(
        self, side: Side = Side.BUY, quantity: str = "1", symbol: str = SYMBOL, **values: Any
    ) -> Order:
        """Stores an order."""
        order = Order(
            user_id=self.user_id,
            strategy_id=self.strategy_id,
            exchange_account_id=self.exchange_account_id,
            client_order_id=f"tb{token_hex(15)}",
            symbol=symbol,
            side=side,
            quantity=Decimal(quantity),
            **values,
        )
        async with self.database.transaction() as session:
            session.add(order)
            await session.flush()
            await session.refresh(order)
        return order

    async def signal(self, **values: Any) -> Signal:
        """Stores a signal."""
        given = {"symbol": SYMBOL, "action": "buy", "price": Decimal(100), "received_at": NOON} | values
        signal = Signal(
            user_id=self.user_id,
            strategy_id=self.strategy_id,
            dedup_key=f"id:{token_hex(8)}",
            payload={},
            **given,
        )
        async with self.database.transaction() as session:
            session.add(signal)
            await session.flush()
            await session.refresh(signal)
        return signal

    async def book(self, order: Order, trade: Trade) -> bool:
        """Books a trade in a transaction of its own."""
        async with self.database.transaction() as session:
            return await positions.apply(session, order, trade)

    async def hold(self, quantity: str, price: str = "100", symbol: str = SYMBOL, **values: Any) -> Order:
        """Trades `quantity` (negative: sold) at `price`."""
        amount = Decimal(quantity)
        side = Side.BUY if amount > 0 else Side.SELL
        order = await self.order(side, str(abs(amount)), symbol, state="filled")
        await self.book(order, trade(str(abs(amount)), price, **values))
        return order


def trade(
    quantity: str = "1",
    price: str = "100",
    fee: str = "0",
    at: datetime = NOON,
    trade_id: str | None = None,
) -> Trade:
    """A trade as an exchange reports it."""
    return Trade(trade_id or token_hex(8), Decimal(quantity), Decimal(price), Decimal(fee), "USDT", at)


async def open_desk(database: Database, account: Account) -> Desk:
    """Gives the account's strategy an exchange account, and its API key the right to trade."""
    async with database.transaction() as session:
        user = (await session.execute(select(User).where(User.email == account.email))).scalar_one()
        strategy = (await session.execute(select(Strategy).where(Strategy.user_id == user.id))).scalar_one()
        paper = ExchangeAccount(
            user_id=user.id, name=f"desk {token_hex(4)}", exchange="paper", mode=Mode.PAPER
        )
        session.add(paper)
        await session.flush()
        strategy.exchange_account_id = paper.id
        return Desk(database, user.id, strategy.id, paper.id)
