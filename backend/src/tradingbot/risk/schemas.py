"""Refusals as the API shows them; times are UTC."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tradingbot.core.symbols import InMarket
from tradingbot.risk.models import Refusal, Rule

_REFUSAL: dict[str, Any] = {
    "id": "7c1b0f52-6d4e-4a1c-8b8e-1f2a3c4d5e6f",
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "signal_id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d",
    "symbol": "BTCUSDT",
    "market": "BTCUSDT",
    "rule": "max_position",
    "reason": "position would be 1.2 BTCUSDT, limit 1",
    "created_at": "2026-01-05T12:00:01.300000Z",
}


class RefusalOut(InMarket):
    """A signal that was not traded: the rule that said no, and why."""

    model_config = ConfigDict(json_schema_extra={"example": _REFUSAL})

    id: UUID
    strategy_id: UUID
    signal_id: UUID
    rule: Rule
    reason: str
    created_at: datetime

    @classmethod
    def of(cls, refusal: Refusal, symbol: str) -> Self:
        """Shows a stored refusal."""
        return cls(
            id=refusal.id,
            strategy_id=refusal.strategy_id,
            signal_id=refusal.signal_id,
            symbol=symbol,
            rule=Rule(refusal.rule),
            reason=refusal.reason,
            created_at=refusal.created_at,
        )


class RefusalPage(BaseModel):
    """Refusals, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_REFUSAL], "next_cursor": None}})

    items: list[RefusalOut]
    next_cursor: str | None
