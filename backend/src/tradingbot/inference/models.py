"""Table predictions."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, desc
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.models import Base, Identified, Timestamped


class PredictionStatus(StrEnum):
    """`ok`: the model answered. `disabled`: there is none. `failed`: it could not; `reason` says why."""

    OK = "ok"
    DISABLED = "disabled"
    FAILED = "failed"


class Prediction(Identified, Timestamped, Base):
    """What a model said of a signal, and which model: version, and SHA-256 of its bytes in hexadecimal."""

    __tablename__ = "predictions"
    __table_args__ = (
        CheckConstraint("status IN ('ok', 'disabled', 'failed')", name="status_known"),
        CheckConstraint("(status = 'ok') = (outcome IS NOT NULL)", name="answer_has_outcome"),
        Index("ix_predictions_user_id_created_at_id", "user_id", desc("created_at"), desc("id")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    signal_id: Mapped[UUID] = mapped_column(ForeignKey("signals.id", ondelete="CASCADE"), unique=True)
    status: Mapped[str] = mapped_column(String(8))
    model_name: Mapped[str] = mapped_column(String(64))
    model_version: Mapped[str | None] = mapped_column(String(64))
    model_digest: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str | None] = mapped_column(String(64))
    # Class → probability, as decimal strings.
    probabilities: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    reason: Mapped[str | None] = mapped_column(String(500))
