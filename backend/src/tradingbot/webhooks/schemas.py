"""An alert as TradingView, or any tool that can POST, sends it."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from tradingbot.core.fields import no_boolean, plain_number, stored
from tradingbot.core.moments import to_utc
from tradingbot.signals.models import Action, MarketPosition


def _lower_case(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Amount = Annotated[
    Decimal,
    Field(allow_inf_nan=False, max_digits=128),
    BeforeValidator(plain_number),
    AfterValidator(stored),
]
Moment = Annotated[datetime, BeforeValidator(no_boolean), AfterValidator(to_utc)]


class Alert(BaseModel):
    """The fields that we know; others are kept with the signal as they came. Times without a zone are UTC.

    Fields that ask for what is not supported, such as `stopLoss` or `type: limit`, are refused, but in an
    exit.
    """

    model_config = ConfigDict(
        str_strip_whitespace=True,
        json_schema_extra={
            "example": {
                "symbol": "BTCUSDT",
                "action": "buy",
                "quantity": "0.5",
                "price": "64250.1",
                "market_position": "long",
                "position_size": "0.5",
                "order_id": "Long",
                "timenow": "2026-01-05T12:00:00Z",
                "comment": "breakout",
            }
        },
    )

    symbol: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="May be called `ticker`.",
        ),
    ]
    action: Annotated[Action | None, BeforeValidator(_lower_case)] = None
    market_position: Annotated[MarketPosition | None, BeforeValidator(_lower_case)] = None
    position_size: Amount | None = None
    quantity: Annotated[
        Amount | None,
        Field(description="May be called `qty` or `contracts`: the first that is not null counts."),
    ] = None
    price: Amount | None = None
    reduce_only: Annotated[
        bool | None,
        Field(description="Only what closes something is done. May be called `reduceOnly`."),
    ] = None
    id: str | None = None
    order_id: Annotated[str | None, Field(description="128 characters of it are stored.")] = None
    timenow: Moment | None = None
    comment: Annotated[str | None, Field(description="1000 characters of it are stored.")] = None
    secret: Annotated[str | None, Field(max_length=512)] = None

    @property
    def is_exit(self) -> bool:
        """Whether it can only bring the position nearer to zero."""
        if self.market_position is None:
            return self.action == Action.CLOSE or bool(self.reduce_only)
        return self.market_position == MarketPosition.FLAT or bool(self.reduce_only)

    @model_validator(mode="after")
    def says_what_to_do(self) -> Self:
        if self.action is None and self.market_position is None:
            raise ValueError("action (buy, sell, close) or market_position (long, short, flat) is needed")
        return self


class Receipt(BaseModel):
    """The alert is stored: just now, or by an earlier delivery of the same alert.

    `notes` says what of it was cut, left out or not done.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d", "status": "accepted"}}
    )

    id: UUID
    status: Literal["accepted", "duplicate"]
    notes: list[str] = []


_REJECTED: dict[str, Any] = {
    "id": "5b0c2f0e-8a0d-4f2a-9d57-6f0f1d8a3c44",
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "status": 422,
    "reason": "The alert asks for what is not supported. stopLoss: not supported: send an alert that closes",
    "times": 12,
    "created_at": "2026-01-05T12:00:00Z",
    "last_at": "2026-01-05T12:34:00Z",
}


class RejectedAlertOut(BaseModel):
    """Alerts of one strategy that were answered with this error, of which `reason` is that of the last."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _REJECTED})

    id: UUID
    strategy_id: UUID
    status: int
    reason: str
    times: int
    created_at: datetime
    last_at: datetime


class RejectedAlertPage(BaseModel):
    """Rejected alerts, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_REJECTED], "next_cursor": None}})

    items: list[RejectedAlertOut]
    next_cursor: str | None
