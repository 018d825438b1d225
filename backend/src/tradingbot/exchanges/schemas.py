"""Exchange accounts as the API takes and shows them. Credentials go in and never come out."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    JsonValue,
    SecretStr,
    StringConstraints,
    model_validator,
)

from tradingbot.core.amounts import Amount
from tradingbot.core.fields import Changes, Fraction, Name, PositiveAmount, RequestBody
from tradingbot.exchanges.models import PAPER, Market, Mode

_LONGEST_CREDENTIAL = 4096
_EXAMPLE: dict[str, JsonValue] = {
    "id": "3f7f5a52-5f0e-4c57-9c29-3a5d2c9a8a11",
    "name": "Binance testnet",
    "exchange": "binance",
    "market": "spot",
    "mode": "testnet",
    "has_credentials": True,
    "key_hint": "x7Qp",
    "fee_rate": "0.001",
    "slippage_rate": "0",
    "starting_equity": "10000",
    "live_price": False,
    "is_default": False,
    "created_at": "2026-01-05T12:00:00Z",
}
PAPER_ONLY = ("fee_rate", "slippage_rate", "starting_equity", "live_price")


def _credential(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not 1 <= len(text) <= _LONGEST_CREDENTIAL:
        raise ValueError(f"must have 1 to {_LONGEST_CREDENTIAL} characters")
    # A secret may be a private key in PEM, with line ends.
    if not text.isascii() or not text.replace("\r", "").replace("\n", "").isprintable():
        raise ValueError("must be printable ASCII")
    return SecretStr(text)


Credential = Annotated[SecretStr, AfterValidator(_credential)]
ExchangeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,32}$")]


class AccountIn(RequestBody):
    """A new account.

    `mode` is `paper` for the exchange `paper`; else it is `testnet` under BINANCE_TESTNET, and has to be said
    without it. A paper account of a real exchange takes its public prices (with `live_price`), and no
    credentials. Rates are fractions: 0.001 is 0.1 %.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "Binance testnet",
                "exchange": "binance",
                "market": "spot",
                "mode": "testnet",
                "key": "the API key that the exchange gave you",
                "secret": "and its secret",
            }
        },
    )

    name: Name
    exchange: ExchangeName = PAPER
    market: Market = Market.SPOT
    mode: Mode | None = None
    key: Credential | None = None
    secret: Credential | None = None
    passphrase: Credential | None = None
    fee_rate: Fraction = Decimal("0.001")
    slippage_rate: Fraction = Decimal(0)
    starting_equity: PositiveAmount = Decimal(10000)
    live_price: bool = False

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        if self.exchange == PAPER and self.mode not in (None, Mode.PAPER):
            raise ValueError(f"the exchange {PAPER} has no mode {self.mode}")
        if self.exchange == PAPER and self.live_price:
            raise ValueError("live_price needs an exchange whose price is asked for")
        if self.is_paper:
            if self.key or self.secret or self.passphrase:
                raise ValueError("a paper account has no credentials")
        elif self.key is None or self.secret is None:
            raise ValueError("key and secret are needed")
        elif self.model_fields_set.intersection(PAPER_ONLY):
            raise ValueError(f"{', '.join(PAPER_ONLY)} are those of paper accounts")
        return self

    @property
    def is_paper(self) -> bool:
        """Whether nothing is sent to an exchange."""
        return self.mode == Mode.PAPER or (self.mode is None and self.exchange == PAPER)


class AccountChanges(Changes):
    """What to change. Exchange, market and mode stay: orders were made with them.

    New credentials come together: with `key` and `secret`, a passphrase that is not named is none.
    """

    model_config = ConfigDict(json_schema_extra={"example": {"name": "My testnet"}})
    required: ClassVar[frozenset[str]] = frozenset({"name", "key", "secret", *PAPER_ONLY})

    name: Name | None = None
    key: Credential | None = None
    secret: Credential | None = None
    passphrase: Credential | None = None
    fee_rate: Fraction | None = None
    slippage_rate: Fraction | None = None
    starting_equity: PositiveAmount | None = None
    live_price: bool | None = None

    @model_validator(mode="after")
    def credentials_come_together(self) -> Self:
        if (self.key is None) != (self.secret is None) or (self.passphrase and not self.key):
            raise ValueError("key and secret are changed together")
        return self


class AccountOut(BaseModel):
    """An account, without its credentials: `key_hint` is the end of a key that is long enough to show it."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": _EXAMPLE})

    id: UUID
    name: str
    exchange: str
    market: Market
    mode: Mode
    has_credentials: bool
    key_hint: str | None
    fee_rate: Amount
    slippage_rate: Amount
    starting_equity: Amount
    live_price: bool
    is_default: bool
    created_at: datetime


class AccountPage(BaseModel):
    """Accounts, the newest first; `next_cursor` gets the older ones, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [_EXAMPLE], "next_cursor": None}})

    items: list[AccountOut]
    next_cursor: str | None
