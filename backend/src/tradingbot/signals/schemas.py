"""Signals as the API shows them. Amounts are decimal strings, times are UTC."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tradingbot.core.amounts import Amount
from tradingbot.core.symbols import InMarket
from tradingbot.inference.models import PredictionStatus
from tradingbot.orders.models import OrderState, Side
from tradingbot.risk.models import Rule
from tradingbot.signals.models import Action, MarketPosition, SignalStatus

_SIGNAL: dict[str, Any] = {
    "id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d",
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "symbol": "BTCUSDT",
    "market": "BTCUSDT",
    "action": "buy",
    "market_position": "long",
    "position_size": "0.5",
    "quantity": "0.5",
    "price": "64250.1",
    "reduce_only": False,
    "order_id": "Long",
    "comment": None,
    "sent_at": "2026-01-05T12:00:00Z",
    "received_at": "2026-01-05T12:00:01.250000Z",
    "status": "ordered",
    "status_reason": None,
    "processed_at": "2026-01-05T12:00:01.300000Z",
}
_ORDER: dict[str, Any] = {
    "id": "3d1c4f0a-77b2-4f2e-9c1d-5f0b8f6f2a10",
    "client_order_id": "tbk4m2q7x5v3n6p2r7s4t5w6y2z3a4bc",
    "exchange_order_id": "28457",
    "side": "buy",
    "quantity": "0.5",
    "filled_quantity": "0.5",
    "average_price": "64251.3",
    "state": "filled",
    "reason": None,
}
_REFUSAL: dict[str, Any] = {
    "rule": "max_position",
    "reason": "A position of 1.5 would exceed 1.",
}
_PREDICTION: dict[str, Any] = {
    "status": "ok",
    "model_name": "trend",
    "model_version": "2026-01",
    "model_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "outcome": "buy",
    "probabilities": {"buy": "0.712000", "sell": "0.288000"},
    "reason": None,
}


class SignalOut(InMarket):
    """One stored alert.

    `status` is what became of it: `queued` until a worker has decided at `processed_at`.
    """

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _SIGNAL})

    id: UUID
    strategy_id: UUID
    action: Action | None
    market_position: MarketPosition | None
    position_size: Amount | None
    quantity: Amount | None
    price: Amount | None
    reduce_only: bool
    order_id: str | None
    comment: str | None
    sent_at: datetime | None
    received_at: datetime
    status: SignalStatus
    status_reason: str | None
    processed_at: datetime | None


class SignalOrder(BaseModel):
    """The order that came of a signal."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _ORDER})

    id: UUID
    client_order_id: str
    exchange_order_id: str | None
    side: Side
    quantity: Amount
    filled_quantity: Amount
    average_price: Amount | None
    state: OrderState
    reason: str | None


class SignalRefusal(BaseModel):
    """Why a signal was not traded."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _REFUSAL})

    rule: Rule
    reason: str


class SignalPrediction(BaseModel):
    """What a model said of a signal; probabilities are decimal strings."""

    model_config = ConfigDict(
        from_attributes=True, protected_namespaces=(), json_schema_extra={"example": _PREDICTION}
    )

    status: PredictionStatus
    model_name: str
    model_version: str | None
    model_digest: str | None
    outcome: str | None
    probabilities: dict[str, str] | None
    reason: str | None


class SignalDetail(SignalOut):
    """A signal and what came of it: an order or a refusal, once a worker has decided."""

    model_config = ConfigDict(
        json_schema_extra={"example": _SIGNAL | {"order": _ORDER, "refusal": None, "prediction": _PREDICTION}}
    )

    order: SignalOrder | None
    refusal: SignalRefusal | None
    prediction: SignalPrediction | None


class SignalPage(BaseModel):
    """Signals, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_SIGNAL], "next_cursor": None}})

    items: list[SignalOut]
    next_cursor: str | None
