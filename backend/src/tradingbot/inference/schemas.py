"""Predictions as the API shows them."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tradingbot.inference.models import PredictionStatus


class PredictionOut(BaseModel):
    """What a model said of a signal; probabilities are decimal strings."""

    model_config = ConfigDict(
        from_attributes=True,
        protected_namespaces=(),
        json_schema_extra={
            "example": {
                "signal_id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d",
                "status": "ok",
                "model_name": "trend",
                "model_version": "2026-01",
                "model_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "outcome": "buy",
                "probabilities": {"buy": "0.712000", "hold": "0.188000", "sell": "0.100000"},
                "reason": None,
                "created_at": "2026-01-05T12:00:01.300000Z",
            }
        },
    )

    signal_id: UUID
    status: PredictionStatus
    model_name: str
    model_version: str | None
    model_digest: str | None
    outcome: str | None
    probabilities: dict[str, str] | None
    reason: str | None
    created_at: datetime
