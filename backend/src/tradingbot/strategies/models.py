"""Table strategies."""

from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from tradingbot.core.amounts import AMOUNT
from tradingbot.core.models import Base, Identified, Timestamped


class Sizing(StrEnum):
    """How large an order is.

    `alert`: the quantity (or position size) in the alert. `fixed_quantity`: `sizing_value` units of the base
    asset. `fixed_quote`: `sizing_value` units of the quote asset, divided by the price. `equity_percent`:
    `sizing_value` per cent of the account's equity in the quote asset, divided by the price.
    """

    ALERT = "alert"
    FIXED_QUANTITY = "fixed_quantity"
    FIXED_QUOTE = "fixed_quote"
    EQUITY_PERCENT = "equity_percent"


class ModelMode(StrEnum):
    """What the strategy lets a model do with a signal."""

    OFF = "off"
    ANNOTATE = "annotate"
    VETO = "veto"


class Strategy(Identified, Timestamped, Base):
    """What alerts are sent to, and how they are traded. A null limit is no limit."""

    __tablename__ = "strategies"
    __table_args__ = (
        UniqueConstraint("user_id", "name"),
        CheckConstraint(
            "sizing IN ('alert', 'fixed_quantity', 'fixed_quote', 'equity_percent')", name="sizing_known"
        ),
        CheckConstraint("sizing = 'alert' OR sizing_value > 0", name="sizing_has_value"),
        CheckConstraint("model_mode IN ('off', 'annotate', 'veto')", name="model_mode_known"),
        CheckConstraint("model_mode = 'off' OR model_name IS NOT NULL", name="model_mode_has_model"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    exchange_account_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("exchange_accounts.id", ondelete="RESTRICT"), index=True
    )
    name: Mapped[str] = mapped_column(String(100))
    webhook_token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    secret_hash: Mapped[str | None] = mapped_column(String(64))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    # Empty: any symbol.
    symbols: Mapped[list[str]] = mapped_column(ARRAY(String(64)), server_default=text("'{}'"))
    sizing: Mapped[str] = mapped_column(String(16), server_default=text("'alert'"))
    sizing_value: Mapped[Decimal | None] = mapped_column(AMOUNT)
    max_position: Mapped[Decimal | None] = mapped_column(AMOUNT)
    max_order_value: Mapped[Decimal | None] = mapped_column(AMOUNT)
    max_daily_loss: Mapped[Decimal | None] = mapped_column(AMOUNT)
    max_orders_per_minute: Mapped[int | None]
    # Seconds; null: WEBHOOK_MAX_AGE.
    max_alert_age: Mapped[int | None]
    model_name: Mapped[str | None] = mapped_column(String(64))
    model_mode: Mapped[str] = mapped_column(String(8), server_default=text("'off'"))

    @property
    def has_secret(self) -> bool:
        """Whether alerts must carry a secret of this strategy's own."""
        return self.secret_hash is not None
