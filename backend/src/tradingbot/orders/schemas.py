"""Orders and fills as the API shows them. Amounts are decimal strings, times are UTC."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from tradingbot.core.amounts import Amount
from tradingbot.core.fields import NotNegativeAmount, PositiveAmount, Reason, RequestBody
from tradingbot.core.symbols import InMarket
from tradingbot.orders.models import OrderState, Side

_ORDER: dict[str, Any] = {
    "id": "3d1c4f0a-77b2-4f2e-9c1d-5f0b8f6f2a10",
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "exchange_account_id": "f2a4b8de-3a0e-4c53-9f0e-6a3c1f2b7d55",
    "signal_id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d",
    "client_order_id": "tbk4m2q7x5v3n6p2r7s4t5w6y2z3a4bc",
    "exchange_order_id": "28457",
    "symbol": "BTCUSDT",
    "market": "BTCUSDT",
    "side": "buy",
    "quantity": "0.5",
    "price": "64250.1",
    "reduce_only": False,
    "state": "filled",
    "filled_quantity": "0.5",
    "average_price": "64251.3",
    "reason": None,
    "attempts": 1,
    "created_at": "2026-01-05T12:00:01.300000Z",
    "submitted_at": "2026-01-05T12:00:01.320000Z",
    "updated_at": "2026-01-05T12:00:01.410000Z",
    "cancel_requested_at": None,
    "settled_at": None,
}
_FILL: dict[str, Any] = {
    "id": "c0f3a8c2-1e0d-4a4f-8a57-2f6b9f1f7e21",
    "order_id": "3d1c4f0a-77b2-4f2e-9c1d-5f0b8f6f2a10",
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "exchange_trade_id": "28457-1",
    "symbol": "BTCUSDT",
    "market": "BTCUSDT",
    "side": "buy",
    "quantity": "0.5",
    "price": "64251.3",
    "fee": "32.12565",
    "fee_asset": "USDT",
    "unvalued_fee": "0",
    "realised_pnl": "0",
    "filled_at": "2026-01-05T12:00:01.400000Z",
}


class OrderOut(InMarket):
    """One market order; `price` is what it was decided at, `average_price` what its fills cost on average.

    `signal_id` is null for an order made by hand, and for one that goes on with an exit: its
    `client_order_id` is that of the first one with a number.
    """

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _ORDER})

    id: UUID
    strategy_id: UUID
    exchange_account_id: UUID
    signal_id: UUID | None
    client_order_id: str
    exchange_order_id: str | None
    side: Side
    quantity: Amount
    price: Amount | None
    reduce_only: bool
    state: OrderState
    filled_quantity: Amount
    average_price: Amount | None
    reason: str | None
    attempts: int
    created_at: datetime
    submitted_at: datetime | None
    updated_at: datetime
    cancel_requested_at: datetime | None
    settled_at: datetime | None


class SettlementIn(RequestBody):
    """What became of an order of which the exchange says nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "filled_quantity": "0.5",
                "price": "64251.3",
                "fee": "32.12",
                "reason": "The exchange's own list of trades says so",
            }
        }
    )

    filled_quantity: NotNegativeAmount = Field(
        description="All that was filled of it, in the base asset: what the account got, less a fee that was"
        " taken from it."
    )
    price: PositiveAmount | None = Field(
        default=None, description="What that was filled at on average, as far as it is not booked already."
    )
    fee: NotNegativeAmount = Field(default=Decimal(0), description="Of the same, in the quote asset.")
    # It is kept beside who said it.
    reason: Annotated[Reason, Field(max_length=400)]


class FillOut(InMarket):
    """One trade that filled an order or a part of it.

    `realised_pnl` is before the fee; both are in the quote asset. `fee_asset` is what the fee was taken in.
    `unvalued_fee` is in that asset: what is not in `fee`, since no price of it in the quote asset was known.
    """

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _FILL})

    id: UUID
    order_id: UUID
    strategy_id: UUID
    exchange_trade_id: str
    side: Side
    quantity: Amount
    price: Amount
    fee: Amount
    fee_asset: str | None
    unvalued_fee: Amount
    realised_pnl: Amount
    filled_at: datetime


class OrderDetail(OrderOut):
    """An order with its fills, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": _ORDER | {"fills": [_FILL]}})

    fills: list[FillOut]


class OrderPage(BaseModel):
    """Orders, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_ORDER], "next_cursor": None}})

    items: list[OrderOut]
    next_cursor: str | None


class FillPage(BaseModel):
    """Fills, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_FILL], "next_cursor": None}})

    items: list[FillOut]
    next_cursor: str | None
