"""Users, sessions, API keys, strategies and signals."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
lint_exceptions = {"prefer-text-field": "the lengths are limits that the API names, too"}

_AMOUNT = sa.Numeric(38, 18)


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid, server_default=sa.text("gen_random_uuid()"), nullable=False)


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> sa.Column[Any]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def _owner(table: str, column: str = "user_id", target: str = "users") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{target}.id"], name=op.f(f"fk_{table}_{column}_{target}"), ondelete="CASCADE"
    )


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "users",
        _id(),
        _moment("created_at", now=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=True),
        sa.Column("is_active", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email_lower_case")),
    )
    op.create_table(
        "sessions",
        _id(),
        _moment("created_at", now=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        _moment("expires_at"),
        _moment("revoked_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
        _owner("sessions"),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])
    op.create_table(
        "api_keys",
        _id(),
        _moment("created_at", now=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False),
        _moment("expires_at", nullable=True),
        _moment("revoked_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
        _owner("api_keys"),
    )
    op.create_index(op.f("ix_api_keys_user_id"), "api_keys", ["user_id"])
    op.create_table(
        "strategies",
        _id(),
        _moment("created_at", now=True),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("webhook_token_hash", sa.String(64), nullable=False),
        sa.Column("is_active", sa.Boolean, server_default=sa.text("true"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_strategies")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_strategies_user_id_name")),
        sa.UniqueConstraint("webhook_token_hash", name=op.f("uq_strategies_webhook_token_hash")),
        _owner("strategies"),
    )
    op.create_table(
        "signals",
        _id(),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("strategy_id", sa.Uuid, nullable=False),
        sa.Column("dedup_key", sa.String(100), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("action", sa.String(8), nullable=True),
        sa.Column("market_position", sa.String(8), nullable=True),
        sa.Column("position_size", _AMOUNT, nullable=True),
        sa.Column("quantity", _AMOUNT, nullable=True),
        sa.Column("price", _AMOUNT, nullable=True),
        sa.Column("order_id", sa.String(128), nullable=True),
        sa.Column("comment", sa.String(1000), nullable=True),
        _moment("sent_at", nullable=True),
        _moment("received_at"),
        sa.Column("payload", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signals")),
        sa.UniqueConstraint("strategy_id", "dedup_key", name=op.f("uq_signals_strategy_id_dedup_key")),
        sa.CheckConstraint("action IN ('buy', 'sell', 'close')", name=op.f("ck_signals_action_known")),
        sa.CheckConstraint(
            "market_position IN ('long', 'short', 'flat')", name=op.f("ck_signals_market_position_known")
        ),
        sa.CheckConstraint(
            "action IS NOT NULL OR market_position IS NOT NULL", name=op.f("ck_signals_says_what_to_do")
        ),
        _owner("signals"),
        _owner("signals", "strategy_id", "strategies"),
    )
    op.create_index(
        "ix_signals_user_id_received_at_id",
        "signals",
        ["user_id", sa.text("received_at DESC"), sa.text("id DESC")],
    )


def downgrade() -> None:
    """Go back."""
    for table in ("signals", "strategies", "api_keys", "sessions", "users"):
        op.drop_table(table)
