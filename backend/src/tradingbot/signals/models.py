"""Table signals."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, desc, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.amounts import AMOUNT
from tradingbot.core.models import Base, Identified

DEDUP_CONSTRAINT = "uq_signals_strategy_id_dedup_key"


class Action(StrEnum):
    """What the alert asks for."""

    BUY = "buy"
    SELL = "sell"
    CLOSE = "close"


class MarketPosition(StrEnum):
    """The position that the alert wants to hold afterwards."""

    LONG = "long"
    SHORT = "short"
    FLAT = "flat"


class SignalStatus(StrEnum):
    """What became of a signal."""

    QUEUED = "queued"
    ORDERED = "ordered"
    REFUSED = "refused"
    VETOED = "vetoed"
    NOTHING_TO_DO = "nothing_to_do"
    FAILED = "failed"


class Signal(Identified, Base):
    """An alert. Two alerts with the same `dedup_key` for one strategy are the same alert."""

    __tablename__ = "signals"
    __table_args__ = (
        UniqueConstraint("strategy_id", "dedup_key", name=DEDUP_CONSTRAINT),
        CheckConstraint("action IN ('buy', 'sell', 'close')", name="action_known"),
        CheckConstraint("market_position IN ('long', 'short', 'flat')", name="market_position_known"),
        CheckConstraint("action IS NOT NULL OR market_position IS NOT NULL", name="says_what_to_do"),
        CheckConstraint(
            "status IN ('queued', 'ordered', 'refused', 'vetoed', 'nothing_to_do', 'failed')",
            name="status_known",
        ),
        Index("ix_signals_user_id_received_at_id", "user_id", desc("received_at"), desc("id")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    dedup_key: Mapped[str] = mapped_column(String(100))
    symbol: Mapped[str] = mapped_column(String(64))
    action: Mapped[str | None] = mapped_column(String(8))
    market_position: Mapped[str | None] = mapped_column(String(8))
    position_size: Mapped[Decimal | None] = mapped_column(AMOUNT)
    quantity: Mapped[Decimal | None] = mapped_column(AMOUNT)
    price: Mapped[Decimal | None] = mapped_column(AMOUNT)
    order_id: Mapped[str | None] = mapped_column(String(128))
    comment: Mapped[str | None] = mapped_column(String(1000))
    sent_at: Mapped[datetime | None]
    received_at: Mapped[datetime]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # Only what closes something is done.
    reduce_only: Mapped[bool] = mapped_column(server_default=text("false"))
    status: Mapped[str] = mapped_column(String(16), server_default=text("'queued'"))
    status_reason: Mapped[str | None] = mapped_column(String(500))
    # When a worker first took it up, and when its fate was decided.
    taken_at: Mapped[datetime | None]
    processed_at: Mapped[datetime | None]
