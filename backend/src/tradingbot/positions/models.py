"""Tables positions and account_holdings."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    desc,
    func,
    or_,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.amounts import AMOUNT
from tradingbot.core.models import Base, Identified


class PriceSource(StrEnum):
    """What a price was seen in."""

    FILL = "fill"
    SIGNAL = "signal"


class AccountHolding(Identified, Base):
    """What an exchange account was last seen to hold, and what was booked then. Paper accounts have none.

    The holding of a `market` is counted in `asset`: on spot all markets of a base asset share one balance,
    `quantity`, and `booked` is of all of them. `differs_since`: since then the account does not have what is
    booked; null: it has, but for dust.
    """

    __tablename__ = "account_holdings"
    __table_args__ = (UniqueConstraint("exchange_account_id", "market"),)

    exchange_account_id: Mapped[UUID] = mapped_column(ForeignKey("exchange_accounts.id", ondelete="CASCADE"))
    market: Mapped[str] = mapped_column(String(64))
    asset: Mapped[str] = mapped_column(String(64))
    quantity: Mapped[Decimal] = mapped_column(AMOUNT)
    booked: Mapped[Decimal] = mapped_column(AMOUNT)
    differs_since: Mapped[datetime | None]


class Position(Identified, Base):
    """What a strategy holds in a market: `quantity` is negative when short; money is in the quote asset."""

    __tablename__ = "positions"
    __table_args__ = (
        UniqueConstraint("strategy_id", "symbol"),
        Index("uq_positions_strategy_id_market", "strategy_id", text("market_of(symbol)"), unique=True),
        CheckConstraint("last_price_source IN ('fill', 'signal')", name="last_price_source_known"),
        Index("ix_positions_user_id_updated_at_id", "user_id", desc("updated_at"), desc("id")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    strategy_id: Mapped[UUID] = mapped_column(ForeignKey("strategies.id", ondelete="CASCADE"))
    # As the sender of the first signal wrote it: one market has many spellings, and one position.
    symbol: Mapped[str] = mapped_column(String(64))
    quantity: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    # The least quantity that the market took of an exit when it was last asked: what is less is dust.
    min_quantity: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    average_price: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    # Before fees.
    realised_pnl: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    fees: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    # The newest price that we have met, and where and when: a fill, or a signal that an order was decided on.
    last_price: Mapped[Decimal] = mapped_column(AMOUNT, server_default=text("0"))
    last_price_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    last_price_source: Mapped[str] = mapped_column(String(8), server_default=text("'fill'"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    @hybrid_property
    def is_flat(self) -> bool:
        """Whether nothing is held, or nothing but dust."""
        return self.quantity == 0 or abs(self.quantity) < self.min_quantity

    @is_flat.inplace.expression
    @classmethod
    def _is_flat(cls) -> ColumnElement[bool]:
        return or_(cls.quantity == 0, func.abs(cls.quantity) < cls.min_quantity)
