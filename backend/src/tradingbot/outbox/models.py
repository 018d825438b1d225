"""Table outbox."""

from datetime import datetime
from enum import IntEnum, StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.models import Base, Timestamped


class Task(StrEnum):
    """What the worker has to do."""

    SIGNAL = "signal"
    ORDER = "order"
    CANCEL = "cancel"


class Priority(IntEnum):
    """What goes first: what a person asks for is urgent, and waits behind no other row of its market."""

    URGENT = 0
    NORMAL = 1


class OutboxRow(Timestamped, Base):
    """Something to do; deleted when it is done.

    Rows of one `strategy_id` are worked on one at a time, those of one `priority` and market in the order of
    their ids. `symbol` is the market, as `core.symbols.market_of` says it; it is empty in rows of versions
    that do not know it. `signal` has a `signal_id`;
    `order` (place this order, made by hand) and `cancel` have an `order_id`.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("task IN ('signal', 'order', 'cancel')", name="task_known"),
        CheckConstraint("(task = 'signal') = (signal_id IS NOT NULL)", name="signal_has_signal"),
        CheckConstraint("(task <> 'signal') = (order_id IS NOT NULL)", name="others_have_order"),
        Index("ix_outbox_strategy_id_id", "strategy_id", "id"),
        Index("ix_outbox_strategy_id_priority_symbol_id", "strategy_id", "priority", "symbol", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    task: Mapped[str] = mapped_column(String(8))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    symbol: Mapped[str] = mapped_column(String(64), server_default=text("''"))
    priority: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    signal_id: Mapped[UUID | None] = mapped_column(ForeignKey("signals.id", ondelete="CASCADE"))
    order_id: Mapped[UUID | None] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"))
    # Not before this moment: a row whose work failed for now waits here.
    available_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(String(500))
