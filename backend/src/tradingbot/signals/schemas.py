"""Signals as the API shows them. Amounts are decimal strings, times are UTC."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tradingbot.core.amounts import Amount
from tradingbot.signals.models import Action, MarketPosition


class SignalOut(BaseModel):
    """One stored alert."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d",
                "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
                "symbol": "BTCUSDT",
                "action": "buy",
                "market_position": "long",
                "position_size": "0.5",
                "quantity": "0.5",
                "price": "64250.1",
                "order_id": "Long",
                "comment": None,
                "sent_at": "2026-01-05T12:00:00Z",
                "received_at": "2026-01-05T12:00:01.250000Z",
            }
        },
    )

    id: UUID
    strategy_id: UUID
    symbol: str
    action: Action | None
    market_position: MarketPosition | None
    position_size: Amount | None
    quantity: Amount | None
    price: Amount | None
    order_id: str | None
    comment: str | None
    sent_at: datetime | None
    received_at: datetime


class SignalPage(BaseModel):
    """Signals, the newest first; `next_cursor` gets the older ones, null at the end."""

    items: list[SignalOut]
    next_cursor: str | None
