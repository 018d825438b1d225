"""Strategies as the API takes and shows them. Amounts are decimal strings; a null limit is no limit."""

from datetime import datetime
from typing import Annotated, ClassVar, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    model_validator,
)

from tradingbot.core import secret_policy
from tradingbot.core.amounts import Amount
from tradingbot.core.fields import Changes, Name, PlainInt, PositiveAmount, RequestBody, Symbol
from tradingbot.inference.manifest import NAME
from tradingbot.strategies.models import ModelMode, Sizing
from tradingbot.strategies.symbols import without_repetition

_SETTINGS: dict[str, JsonValue] = {
    "name": "BTC trend",
    "exchange_account_id": None,
    "is_active": True,
    "symbols": ["BTCUSDT"],
    "sizing": "fixed_quote",
    "sizing_value": "250",
    "max_position": "0.5",
    "max_order_value": "1000",
    "max_daily_loss": "200",
    "max_orders_per_minute": 6,
    "max_alert_age": 60,
    "model_name": None,
    "model_mode": "off",
}
_EXAMPLE: dict[str, JsonValue] = {
    "id": "6f1c2a54-7d7e-4b0b-8a55-0d8f6f6c1d11",
    **_SETTINGS,
    "has_secret": False,
    "created_at": "2026-01-05T12:00:00Z",
}
_URL = "https://bot.example.org/api/v1/webhooks/tradingview/tbw_0Yw6…"


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    why = secret_policy.strategy_secret_problem(text)
    if why is not None:
        raise ValueError(f"{why}; leave it out to have one made")
    return SecretStr(text)


Symbols = Annotated[list[Symbol], Field(max_length=200), AfterValidator(without_repetition)]
ModelName = Annotated[str, StringConstraints(pattern=NAME.pattern)]


class _Limits(RequestBody):
    """What may be null. `max_position` is in the base asset; values and losses are in the quote asset.

    `exchange_account_id` null: your default paper account. `max_alert_age` is in seconds, null:
    WEBHOOK_MAX_AGE.
    """

    exchange_account_id: UUID | None = None
    sizing_value: PositiveAmount | None = None
    max_position: PositiveAmount | None = None
    max_order_value: PositiveAmount | None = None
    max_daily_loss: PositiveAmount | None = None
    max_orders_per_minute: Annotated[PlainInt, Field(ge=1, le=100_000)] | None = None
    max_alert_age: Annotated[PlainInt, Field(ge=1, le=604_800)] | None = None
    model_name: ModelName | None = None


class StrategyIn(_Limits):
    """A new strategy. Without `symbols` it takes any; `sizing` other than `alert` needs a `sizing_value`."""

    model_config = ConfigDict(json_schema_extra={"example": _SETTINGS})

    name: Name
    is_active: bool = True
    symbols: Symbols = Field(default_factory=list)
    sizing: Sizing = Sizing.ALERT
    model_mode: ModelMode = ModelMode.OFF

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        if self.sizing != Sizing.ALERT and self.sizing_value is None:
            raise ValueError(f"sizing {self.sizing} needs a sizing_value")
        if self.model_mode != ModelMode.OFF and self.model_name is None:
            raise ValueError(f"model_mode {self.model_mode} needs a model_name")
        return self


class StrategyChanges(_Limits, Changes):
    """What to change: only what is named; null clears a limit."""

    model_config = ConfigDict(json_schema_extra={"example": {"is_active": False, "max_daily_loss": None}})
    required: ClassVar[frozenset[str]] = frozenset({"name", "is_active", "symbols", "sizing", "model_mode"})

    name: Name | None = None
    is_active: bool | None = None
    symbols: Symbols | None = None
    sizing: Sizing | None = None
    model_mode: ModelMode | None = None


class StrategyOut(BaseModel):
    """A strategy; its webhook address and its secret are not kept, so they cannot be shown."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _EXAMPLE})

    id: UUID
    name: str
    exchange_account_id: UUID | None
    is_active: bool
    symbols: list[str]
    sizing: Sizing
    sizing_value: Amount | None
    max_position: Amount | None
    max_order_value: Amount | None
    max_daily_loss: Amount | None
    max_orders_per_minute: int | None
    max_alert_age: int | None
    model_name: str | None
    model_mode: ModelMode
    has_secret: bool
    created_at: datetime


class StrategyCreated(StrategyOut):
    """A new strategy, with the address that its alerts are sent to: shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {**_EXAMPLE, "webhook_url": _URL}})

    webhook_url: str


class StrategyPage(BaseModel):
    """Strategies, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_EXAMPLE], "next_cursor": None}})

    items: list[StrategyOut]
    next_cursor: str | None


class WebhookAddress(BaseModel):
    """Where to send alerts from now on: shown this once. The address before it is dead."""

    model_config = ConfigDict(json_schema_extra={"example": {"webhook_url": _URL}})

    webhook_url: str


class SecretIn(RequestBody):
    """The secret that alerts of this strategy carry; without one, we make one."""

    model_config = ConfigDict(json_schema_extra={"example": {"secret": "hV3rQ8mZ1xT6bN4k"}})

    secret: Annotated[SecretStr, AfterValidator(_secret)] | None = None


class SecretOut(BaseModel):
    """The secret: shown this once."""

    model_config = ConfigDict(json_schema_extra={"example": {"secret": "hV3rQ8mZ1xT6bN4k"}})

    secret: str
