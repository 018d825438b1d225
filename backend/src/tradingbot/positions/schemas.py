"""Positions as the API shows them. Amounts are decimal strings, times are UTC."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from tradingbot.core.amounts import Amount
from tradingbot.core.fields import PositiveAmount, Reason, RequestBody, SignedAmount
from tradingbot.core.symbols import InMarket
from tradingbot.positions.accounting import PositionState, unrealised_pnl
from tradingbot.positions.models import Position, PriceSource

_POSITION: dict[str, Any] = {
    "id": "a9d3f7b1-5c51-4d0e-9b61-0c2f7f3f8e12",
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "symbol": "BTCUSDT",
    "market": "BTCUSDT",
    "quantity": "0.5",
    "is_dust": False,
    "average_price": "64251.3",
    "realised_pnl": "0",
    "fees": "32.12565",
    "last_price": "64300",
    "last_price_at": "2026-01-05T12:05:00Z",
    "last_price_source": "signal",
    "unrealised_pnl": "24.35",
    "updated_at": "2026-01-05T12:00:01.400000Z",
}
_DIFFERENCE: dict[str, Any] = {
    "id": "1be2a6d0-54f1-4a6c-8a52-0f6c5e2d9b31",
    "exchange_account_id": "f2a4b8de-3a0e-4c53-9f0e-6a3c1f2b7d55",
    "market": "BTCUSDT",
    "asset": "BTC",
    "quantity": "0",
    "booked": "0.5",
    "differs_since": "2026-01-05T12:08:00Z",
}
_PERFORMANCE: dict[str, Any] = {
    "strategy_id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    "realised_pnl": "120",
    "unrealised_pnl": "24.35",
    "fees": "32.12565",
    "net_pnl": "112.22435",
}


class Direction(StrEnum):
    """Which way a position looks."""

    LONG = "long"
    SHORT = "short"
    FLAT = "flat"


class PositionOut(InMarket):
    """What a strategy holds of a symbol: `quantity` is negative when short, 0 when it was closed.

    `is_dust`: it is less than the market's least order. It counts as flat, and stays until more is held.
    Profits and losses are in the quote asset and before `fees`. `unrealised_pnl` is what closing at
    `last_price` would realise: the newest price that was met in a fill or a signal, at `last_price_at`.
    """

    model_config = ConfigDict(json_schema_extra={"example": _POSITION})

    id: UUID
    strategy_id: UUID
    quantity: Amount
    is_dust: bool
    average_price: Amount
    realised_pnl: Amount
    fees: Amount
    last_price: Amount
    last_price_at: datetime
    last_price_source: PriceSource
    unrealised_pnl: Amount
    updated_at: datetime

    @classmethod
    def of(cls, position: Position) -> Self:
        """Shows a stored position."""
        state = PositionState(position.quantity, position.average_price)
        return cls(
            id=position.id,
            strategy_id=position.strategy_id,
            symbol=position.symbol,
            quantity=position.quantity,
            is_dust=position.quantity != 0 and position.is_flat,
            average_price=position.average_price,
            realised_pnl=position.realised_pnl,
            fees=position.fees,
            last_price=position.last_price,
            last_price_at=position.last_price_at,
            last_price_source=PriceSource(position.last_price_source),
            unrealised_pnl=unrealised_pnl(state, position.last_price),
            updated_at=position.updated_at,
        )


class AdoptionIn(RequestBody):
    """The exchange is right about a position."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "Closed by hand in its app"}})

    price: PositiveAmount | None = Field(
        default=None, description="What the difference was traded at; without it the last known price."
    )
    # It is kept beside who said it.
    reason: Annotated[Reason, Field(max_length=400)]


class CorrectionIn(AdoptionIn):
    """What a strategy really holds."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"quantity": "0.25", "price": "64100", "reason": "Half of it was sold by hand"}
        }
    )

    quantity: SignedAmount = Field(description="In the base asset, negative when short.")


class Difference(BaseModel):
    """A market of which an account holds something else than its strategies think. Nothing is opened there.

    `quantity` is what the exchange said that the account holds of `asset`, negative when short, and `booked`
    what its strategies held by the book then. On spot that is the base asset, of all markets that it is in.
    """

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _DIFFERENCE})

    id: UUID
    exchange_account_id: UUID
    market: str
    asset: str
    quantity: Amount
    booked: Amount
    differs_since: datetime


class DifferencePage(BaseModel):
    """Differences, those that began last first; `next_cursor` gets the others, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_DIFFERENCE], "next_cursor": None}})

    items: list[Difference]
    next_cursor: str | None


class PositionPage(BaseModel):
    """Positions, the last changed first; `next_cursor` gets the others, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_POSITION], "next_cursor": None}})

    items: list[PositionOut]
    next_cursor: str | None


class Performance(BaseModel):
    """Profit and loss of a strategy since its first fill: `net_pnl` is realised + unrealised - fees.

    Amounts are sums over its symbols in their quote assets, which are taken to be the same.
    """

    model_config = ConfigDict(json_schema_extra={"example": _PERFORMANCE})

    strategy_id: UUID
    realised_pnl: Amount
    unrealised_pnl: Amount
    fees: Amount
    net_pnl: Amount


class SummaryPage(BaseModel):
    """Profit and loss of strategies that have traded, the newest first; `next_cursor` gets the older ones."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_PERFORMANCE], "next_cursor": None}})

    items: list[Performance]
    next_cursor: str | None
