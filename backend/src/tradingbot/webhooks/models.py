"""Table rejected_alerts."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, desc, text
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.models import Base, Identified, Timestamped


class RejectedAlert(Identified, Timestamped, Base):
    """Alerts of a strategy that were answered with an error, of one kind: how many, the last one, and why.

    What is in them is not kept: it may be a secret, wherever it stands.
    """

    __tablename__ = "rejected_alerts"
    __table_args__ = (
        UniqueConstraint("strategy_id", "kind"),
        Index("ix_rejected_alerts_user_id_last_at_id", "user_id", desc("last_at"), desc("id")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    # Status and reason without numbers, by which alerts of a kind are known.
    kind: Mapped[str] = mapped_column(String(200))
    status: Mapped[int] = mapped_column(BigInteger)
    # Of the last one.
    reason: Mapped[str] = mapped_column(String(500))
    times: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    last_at: Mapped[datetime]
