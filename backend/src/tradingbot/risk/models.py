"""Tables halts and refusals."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, desc, text
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.models import Base, Identified, Timestamped


class Rule(StrEnum):
    """Why a signal was not traded."""

    HALTED = "halted"
    STRATEGY_OFF = "strategy_off"
    SYMBOL = "symbol"
    NO_PRICE = "no_price"
    NO_QUANTITY = "no_quantity"
    MAX_POSITION = "max_position"
    MAX_ORDER_VALUE = "max_order_value"
    MAX_DAILY_LOSS = "max_daily_loss"
    MAX_ORDERS_PER_MINUTE = "max_orders_per_minute"
    STALE = "stale"
    MODEL = "model"
    LIVE_FORBIDDEN = "live_forbidden"


class Halt(Identified, Timestamped, Base):
    """A kill switch that is on: for one strategy, for a user (no strategy), or for everybody (no user)."""

    __tablename__ = "halts"
    __table_args__ = (
        CheckConstraint("strategy_id IS NULL OR user_id IS NOT NULL", name="strategy_has_user"),
        # One halt of each reach: NULLS NOT DISTINCT makes two halts for everybody collide too.
        Index("uq_halts_reach", "user_id", "strategy_id", unique=True, postgresql_nulls_not_distinct=True),
    )

    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID | None] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    reason: Mapped[str | None] = mapped_column(String(500))
    # Whether open orders are cancelled and positions closed for as long as it is on.
    flatten: Mapped[bool] = mapped_column(server_default=text("false"))


class Refusal(Identified, Timestamped, Base):
    """A signal that was not traded, and why."""

    __tablename__ = "refusals"
    __table_args__ = (Index("ix_refusals_user_id_created_at_id", "user_id", desc("created_at"), desc("id")),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    signal_id: Mapped[UUID] = mapped_column(ForeignKey("signals.id", ondelete="CASCADE"), unique=True)
    rule: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(String(500))
