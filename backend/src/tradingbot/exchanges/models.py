"""Table exchange_accounts."""

from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.amounts import AMOUNT
from tradingbot.core.models import Base, Identified, Timestamped

PAPER = "paper"
# By so much of it a price may have moved from when an order is decided on until it is filled.
_DRIFT = Decimal("0.002")


class Mode(StrEnum):
    """Whose money it is: nobody's (`paper`, `testnet`, `demo`) or yours (`live`)."""

    PAPER = "paper"
    TESTNET = "testnet"
    DEMO = "demo"
    LIVE = "live"


class Market(StrEnum):
    """What is traded."""

    SPOT = "spot"
    FUTURE = "future"


class ExchangeAccount(Identified, Timestamped, Base):
    """An account at an exchange; its credentials are AES-256-GCM envelopes (`tradingbot.core.crypto`).

    `fee_rate` (a fraction: 0.001 is 0.1 %), `slippage_rate` (a fraction of the price) and `starting_equity`
    (quote asset) are those of the paper exchange; of real ones the rates are what an order by equity leaves
    room for.
    """

    __tablename__ = "exchange_accounts"
    __table_args__ = (
        UniqueConstraint("user_id", "name"),
        CheckConstraint("mode IN ('paper', 'testnet', 'demo', 'live')", name="mode_known"),
        CheckConstraint("market IN ('spot', 'future')", name="market_known"),
        CheckConstraint("(mode = 'paper') = (key_envelope IS NULL)", name="has_key_unless_paper"),
        CheckConstraint("fee_rate >= 0 AND fee_rate < 1", name="fee_rate_is_fraction"),
        CheckConstraint("slippage_rate >= 0 AND slippage_rate < 1", name="slippage_rate_is_fraction"),
        CheckConstraint("NOT is_default OR mode = 'paper'", name="default_is_paper"),
        Index("uq_exchange_accounts_default", "user_id", unique=True, postgresql_where=text("is_default")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    # `paper`, or the name of an exchange in ccxt.
    exchange: Mapped[str] = mapped_column(String(32))
    market: Mapped[str] = mapped_column(String(8), server_default=text("'spot'"))
    mode: Mapped[str] = mapped_column(String(8))
    key_envelope: Mapped[str | None] = mapped_column(Text)
    secret_envelope: Mapped[str | None] = mapped_column(Text)
    passphrase_envelope: Mapped[str | None] = mapped_column(Text)
    # The end of the key, to recognise it by.
    key_hint: Mapped[str | None] = mapped_column(String(4))
    fee_rate: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0.001"))
    slippage_rate: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    starting_equity: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("10000"))
    # Whether the paper exchange asks a public price instead of taking the alert's.
    live_price: Mapped[bool] = mapped_column(server_default=text("false"))
    # The one that strategies without an account trade on.
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))

    @property
    def costs(self) -> Decimal:
        """What an order may cost besides its value, a fraction of it: fee, slippage, a price that moves."""
        drift = _DRIFT if self.mode != Mode.PAPER or self.live_price else Decimal(0)
        return (1 + self.fee_rate) * (1 + self.slippage_rate) * (1 + drift) - 1

    @property
    def has_credentials(self) -> bool:
        """Whether there is a key to show to the exchange."""
        return self.key_envelope is not None
