"""An alert as TradingView, or any tool that can POST, sends it."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from tradingbot.core.fields import no_boolean, stored
from tradingbot.core.moments import to_utc
from tradingbot.signals.models import Action, MarketPosition


def _number_to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _lower_case(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Amount = Annotated[
    Decimal,
    Field(allow_inf_nan=False, max_digits=128),
    BeforeValidator(no_boolean),
    AfterValidator(stored),
]
Moment = Annotated[datetime, BeforeValidator(no_boolean), AfterValidator(to_utc)]
Identifier = Annotated[str, BeforeValidator(_number_to_text), Field(min_length=1, max_length=128)]


class Alert(BaseModel):
    """The fields that we know; others are kept with the signal as they came. Times without a zone are UTC."""

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
            validation_alias=AliasChoices("symbol", "ticker"),
            description="May be called `ticker`.",
        ),
    ]
    action: Annotated[Action | None, BeforeValidator(_lower_case)] = None
    market_position: Annotated[MarketPosition | None, BeforeValidator(_lower_case)] = None
    position_size: Amount | None = None
    quantity: Annotated[
        Amount | None,
        Field(
            validation_alias=AliasChoices("quantity", "qty", "contracts"),
            description="May be called `qty` or `contracts`.",
        ),
    ] = None
    price: Amount | None = None
    id: Identifier | None = None
    order_id: Identifier | None = None
    timenow: Moment | None = None
    comment: Annotated[str | None, Field(max_length=1000)] = None
    secret: Annotated[str | None, Field(max_length=512)] = None

    @model_validator(mode="after")
    def says_what_to_do(self) -> Self:
        if self.action is None and self.market_position is None:
            raise ValueError("action (buy, sell, close) or market_position (long, short, flat) is needed")
        return self


class Receipt(BaseModel):
    """The alert is stored: just now, or by an earlier delivery of the same alert."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"id": "0b9f6c3e-0f0e-4a86-9c0f-2a1f7a3f5b1d", "status": "accepted"}}
    )

    id: UUID
    status: Literal["accepted", "duplicate"]
