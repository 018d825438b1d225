"""Tables orders and fills."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    bindparam,
    desc,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.amounts import AMOUNT
from tradingbot.core.models import Base, Identified, Timestamped


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"


class OrderState(StrEnum):
    """Where an order stands.

    `new`: the intent is stored, nothing was sent. `submitted`: sent, or just about to be. `unknown`: sent,
    and what came of it is not known; the exchange is asked by client order id. The rest exchanges say.
    """

    NEW = "new"
    SUBMITTED = "submitted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


FINAL_STATES = (OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED)
OPEN_STATES = (OrderState.NEW, OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED, OrderState.UNKNOWN)
# Written into a statement, so that PostgreSQL sees that the index of open orders will do.
OPEN_LITERALLY: BindParameter[tuple[OrderState, ...]] = bindparam(
    "open_states", OPEN_STATES, expanding=True, literal_execute=True
)


class Order(Identified, Timestamped, Base):
    """A market order. `client_order_id` follows from what caused it, so the same cause is the same order."""

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("side IN ('buy', 'sell')", name="side_known"),
        CheckConstraint(
            "state IN ('new', 'submitted', 'partially_filled', 'filled', 'cancelled', 'rejected', 'unknown')",
            name="state_known",
        ),
        CheckConstraint("quantity > 0", name="quantity_positive"),
        # Not: at most the quantity. What an exchange filled is booked, even if it is more than was ordered.
        CheckConstraint("filled_quantity >= 0", name="filled_not_negative"),
        Index("ix_orders_user_id_created_at_id", "user_id", desc("created_at"), desc("id")),
        Index("ix_orders_strategy_id_created_at", "strategy_id", "created_at"),
        Index(
            "ix_orders_cancelled",
            "exchange_account_id",
            "updated_at",
            postgresql_where=text("state = 'cancelled'"),
        ),
        Index(
            "ix_orders_open",
            "exchange_account_id",
            postgresql_where=text("state IN ('new', 'submitted', 'partially_filled', 'unknown')"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    exchange_account_id: Mapped[UUID] = mapped_column(ForeignKey("exchange_accounts.id", ondelete="RESTRICT"))
    # Null: made by hand.
    signal_id: Mapped[UUID | None] = mapped_column(ForeignKey("signals.id", ondelete="SET NULL"), unique=True)
    client_order_id: Mapped[str] = mapped_column(String(36), unique=True)
    exchange_order_id: Mapped[str | None] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(64))
    side: Mapped[str] = mapped_column(String(4))
    quantity: Mapped[Decimal] = mapped_column(AMOUNT)
    # The price that the order was decided at; the market gives the one it is filled at.
    price: Mapped[Decimal | None] = mapped_column(AMOUNT)
    reduce_only: Mapped[bool] = mapped_column(server_default=text("false"))
    state: Mapped[str] = mapped_column(String(16), server_default=text("'new'"))
    filled_quantity: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    average_price: Mapped[Decimal | None] = mapped_column(AMOUNT)
    reason: Mapped[str | None] = mapped_column(String(500))
    # How often it was sent: 1 unless the exchange was found never to have got it.
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    submitted_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    cancel_requested_at: Mapped[datetime | None]
    # When a person said what became of it: what an exchange says of it is not booked any more.
    settled_at: Mapped[datetime | None]


class Fill(Identified, Base):
    """A trade that filled an order, or a part of it."""

    __tablename__ = "fills"
    __table_args__ = (
        UniqueConstraint("order_id", "exchange_trade_id"),
        CheckConstraint("quantity > 0", name="quantity_positive"),
        CheckConstraint("price >= 0", name="price_not_negative"),
        Index("ix_fills_user_id_filled_at_id", "user_id", desc("filled_at"), desc("id")),
        Index("ix_fills_strategy_id_filled_at", "strategy_id", "filled_at"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"))
    exchange_trade_id: Mapped[str] = mapped_column(String(64))
    symbol: Mapped[str] = mapped_column(String(64))
    side: Mapped[str] = mapped_column(String(4))
    quantity: Mapped[Decimal] = mapped_column(AMOUNT)
    price: Mapped[Decimal] = mapped_column(AMOUNT)
    # In the quote asset; one taken in the base asset is converted at the price of the fill.
    fee: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    fee_asset: Mapped[str | None] = mapped_column(String(16))
    # In that asset: what is not in `fee`, as its price in the quote asset was not known.
    unvalued_fee: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    # Profit or loss that this fill realised, before its fee, in the quote asset.
    realised_pnl: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    filled_at: Mapped[datetime]
