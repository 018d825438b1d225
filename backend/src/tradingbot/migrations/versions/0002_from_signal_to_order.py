"""From signal to order: exchange accounts, outbox, orders, fills, positions, risk, predictions, events."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
lint_exceptions = {
    "prefer-text-field": "the lengths are limits that the API names, too",
    "prefer-bigint-over-int": "attempts, and limits in seconds or a minute, stay small",
    "ban-new-write-restriction": "only of columns that are new: earlier code does not write them",
    "ban-set-default": "of a column that is new",
    "constraint-missing-not-valid": "users and strategies are few; signals of the first version, too",
    "adding-foreign-key-constraint": "strategies are few",
    "require-concurrent-index-creation": "strategies are few",
}

_AMOUNT = sa.Numeric(38, 18)
_MOMENT = sa.DateTime(timezone=True)
_TABLES = [
    "outbox",
    "fills",
    "refusals",
    "predictions",
    "orders",
    "positions",
    "halts",
    "retired_refresh_tokens",
    "exchange_accounts",
    "events",
    "event_sequences",
]
_ADDED_COLUMNS = {
    "users": ["is_admin"],
    "strategies": [
        "model_mode",
        "model_name",
        "max_alert_age",
        "max_orders_per_minute",
        "max_daily_loss",
        "max_order_value",
        "max_position",
        "sizing_value",
        "sizing",
        "symbols",
        "secret_hash",
        "exchange_account_id",
    ],
    "signals": ["processed_at", "taken_at", "status_reason", "status"],
    "sessions": ["address", "user_agent", "last_used_at"],
    "api_keys": ["last_used_at", "scopes"],
}


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid, server_default=sa.text("gen_random_uuid()"), nullable=False)


def _created_at() -> sa.Column[Any]:
    return sa.Column("created_at", _MOMENT, server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "event_sequences",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("last", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_event_sequences_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_event_sequences")),
    )
    op.create_table(
        "events",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_events_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "sequence", name=op.f("pk_events")),
    )
    op.create_index("ix_events_created_at", "events", ["created_at"])
    op.create_table(
        "exchange_accounts",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("exchange", sa.String(32), nullable=False),
        sa.Column("market", sa.String(8), server_default=sa.text("'spot'"), nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("key_envelope", sa.Text(), nullable=True),
        sa.Column("secret_envelope", sa.Text(), nullable=True),
        sa.Column("passphrase_envelope", sa.Text(), nullable=True),
        sa.Column("key_hint", sa.String(4), nullable=True),
        sa.Column("fee_rate", _AMOUNT, server_default=sa.text("0.001"), nullable=False),
        sa.Column("slippage_rate", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("starting_equity", _AMOUNT, server_default=sa.text("10000"), nullable=False),
        sa.Column("live_price", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _id(),
        _created_at(),
        sa.CheckConstraint(
            "(mode = 'paper') = (key_envelope IS NULL)",
            name=op.f("ck_exchange_accounts_has_key_unless_paper"),
        ),
        sa.CheckConstraint("market IN ('spot', 'future')", name=op.f("ck_exchange_accounts_market_known")),
        sa.CheckConstraint(
            "mode IN ('paper', 'testnet', 'demo', 'live')", name=op.f("ck_exchange_accounts_mode_known")
        ),
        sa.CheckConstraint(
            "fee_rate >= 0 AND fee_rate < 1", name=op.f("ck_exchange_accounts_fee_rate_is_fraction")
        ),
        sa.CheckConstraint(
            "slippage_rate >= 0 AND slippage_rate < 1",
            name=op.f("ck_exchange_accounts_slippage_rate_is_fraction"),
        ),
        sa.CheckConstraint(
            "NOT is_default OR mode = 'paper'", name=op.f("ck_exchange_accounts_default_is_paper")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_exchange_accounts_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchange_accounts")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_exchange_accounts_user_id_name")),
    )
    op.create_index(
        "uq_exchange_accounts_default",
        "exchange_accounts",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("is_default"),
    )
    op.create_table(
        "retired_refresh_tokens",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("retired_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name=op.f("fk_retired_refresh_tokens_session_id_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_retired_refresh_tokens")),
    )
    op.create_index(op.f("ix_retired_refresh_tokens_session_id"), "retired_refresh_tokens", ["session_id"])
    op.create_table(
        "halts",
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("strategy_id", sa.Uuid(), nullable=True),
        sa.Column("reason", sa.String(500), nullable=True),
        _id(),
        _created_at(),
        sa.CheckConstraint(
            "strategy_id IS NULL OR user_id IS NOT NULL", name=op.f("ck_halts_strategy_has_user")
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name=op.f("fk_halts_strategy_id_strategies"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_halts_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_halts")),
    )
    op.create_index(
        "uq_halts_reach", "halts", ["user_id", "strategy_id"], unique=True, postgresql_nulls_not_distinct=True
    )
    op.create_table(
        "positions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_id", sa.Uuid(), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("quantity", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("average_price", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("realised_pnl", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("fees", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("last_price", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("last_price_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_price_source", sa.String(8), server_default=sa.text("'fill'"), nullable=False),
        sa.Column("updated_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        _id(),
        sa.CheckConstraint(
            "last_price_source IN ('fill', 'signal')", name=op.f("ck_positions_last_price_source_known")
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name=op.f("fk_positions_strategy_id_strategies"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_positions_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_positions")),
        sa.UniqueConstraint("strategy_id", "symbol", name=op.f("uq_positions_strategy_id_symbol")),
    )
    op.create_index(
        "ix_positions_user_id_updated_at_id",
        "positions",
        ["user_id", sa.text("updated_at DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "orders",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_id", sa.Uuid(), nullable=False),
        sa.Column("exchange_account_id", sa.Uuid(), nullable=False),
        sa.Column("signal_id", sa.Uuid(), nullable=True),
        sa.Column("client_order_id", sa.String(36), nullable=False),
        sa.Column("exchange_order_id", sa.String(64), nullable=True),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("side", sa.String(4), nullable=False),
        sa.Column("quantity", _AMOUNT, nullable=False),
        sa.Column("price", _AMOUNT, nullable=True),
        sa.Column("reduce_only", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.String(16), server_default=sa.text("'new'"), nullable=False),
        sa.Column("filled_quantity", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("average_price", _AMOUNT, nullable=True),
        sa.Column("reason", sa.String(500), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("submitted_at", _MOMENT, nullable=True),
        sa.Column("updated_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("cancel_requested_at", _MOMENT, nullable=True),
        _id(),
        _created_at(),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_orders_side_known")),
        sa.CheckConstraint(
            "state IN ('new', 'submitted', 'partially_filled', 'filled', 'cancelled', 'rejected', 'unknown')",
            name=op.f("ck_orders_state_known"),
        ),
        sa.CheckConstraint("filled_quantity >= 0", name=op.f("ck_orders_filled_not_negative")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_orders_quantity_positive")),
        sa.ForeignKeyConstraint(
            ["exchange_account_id"],
            ["exchange_accounts.id"],
            name=op.f("fk_orders_exchange_account_id_exchange_accounts"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["signals.id"], name=op.f("fk_orders_signal_id_signals"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name=op.f("fk_orders_strategy_id_strategies"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_orders_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("client_order_id", name=op.f("uq_orders_client_order_id")),
        sa.UniqueConstraint("signal_id", name=op.f("uq_orders_signal_id")),
    )
    op.create_index(
        "ix_orders_open",
        "orders",
        ["exchange_account_id"],
        postgresql_where=sa.text("state IN ('new', 'submitted', 'partially_filled', 'unknown')"),
    )
    op.create_index(
        "ix_orders_cancelled",
        "orders",
        ["exchange_account_id", "updated_at"],
        postgresql_where=sa.text("state = 'cancelled'"),
    )
    op.create_index("ix_orders_strategy_id_created_at", "orders", ["strategy_id", "created_at"])
    op.create_index(
        "ix_orders_user_id_created_at_id",
        "orders",
        ["user_id", sa.text("created_at DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "predictions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("signal_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("model_name", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(64), nullable=True),
        sa.Column("model_digest", sa.String(64), nullable=True),
        sa.Column("outcome", sa.String(64), nullable=True),
        sa.Column("probabilities", JSONB(), nullable=True),
        sa.Column("reason", sa.String(500), nullable=True),
        _id(),
        _created_at(),
        sa.CheckConstraint(
            "(status = 'ok') = (outcome IS NOT NULL)", name=op.f("ck_predictions_answer_has_outcome")
        ),
        sa.CheckConstraint(
            "status IN ('ok', 'disabled', 'failed')", name=op.f("ck_predictions_status_known")
        ),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["signals.id"], name=op.f("fk_predictions_signal_id_signals"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_predictions_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        sa.UniqueConstraint("signal_id", name=op.f("uq_predictions_signal_id")),
    )
    op.create_index(
        "ix_predictions_user_id_created_at_id",
        "predictions",
        ["user_id", sa.text("created_at DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "refusals",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_id", sa.Uuid(), nullable=False),
        sa.Column("signal_id", sa.Uuid(), nullable=False),
        sa.Column("rule", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        _id(),
        _created_at(),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["signals.id"], name=op.f("fk_refusals_signal_id_signals"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name=op.f("fk_refusals_strategy_id_strategies"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_refusals_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
        sa.UniqueConstraint("signal_id", name=op.f("uq_refusals_signal_id")),
    )
    op.create_index(
        "ix_refusals_user_id_created_at_id",
        "refusals",
        ["user_id", sa.text("created_at DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "fills",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("exchange_trade_id", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("side", sa.String(4), nullable=False),
        sa.Column("quantity", _AMOUNT, nullable=False),
        sa.Column("price", _AMOUNT, nullable=False),
        sa.Column("fee", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("fee_asset", sa.String(16), nullable=True),
        sa.Column("realised_pnl", _AMOUNT, server_default=sa.text("0"), nullable=False),
        sa.Column("filled_at", _MOMENT, nullable=False),
        _id(),
        sa.CheckConstraint("price >= 0", name=op.f("ck_fills_price_not_negative")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_fills_quantity_positive")),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_fills_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name=op.f("fk_fills_strategy_id_strategies"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_fills_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fills")),
        sa.UniqueConstraint(
            "order_id", "exchange_trade_id", name=op.f("uq_fills_order_id_exchange_trade_id")
        ),
    )
    op.create_index("ix_fills_strategy_id_filled_at", "fills", ["strategy_id", "filled_at"])
    op.create_index(
        "ix_fills_user_id_filled_at_id", "fills", ["user_id", sa.text("filled_at DESC"), sa.text("id DESC")]
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("task", sa.String(8), nullable=False),
        sa.Column("strategy_id", sa.Uuid(), nullable=False),
        sa.Column("signal_id", sa.Uuid(), nullable=True),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("available_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.String(500), nullable=True),
        _created_at(),
        sa.CheckConstraint(
            "(task <> 'signal') = (order_id IS NOT NULL)", name=op.f("ck_outbox_others_have_order")
        ),
        sa.CheckConstraint(
            "(task = 'signal') = (signal_id IS NOT NULL)", name=op.f("ck_outbox_signal_has_signal")
        ),
        sa.CheckConstraint("task IN ('signal', 'order', 'cancel')", name=op.f("ck_outbox_task_known")),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_outbox_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["signals.id"], name=op.f("fk_outbox_signal_id_signals"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name=op.f("fk_outbox_strategy_id_strategies"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_strategy_id_id", "outbox", ["strategy_id", "id"])
    op.add_column(
        "api_keys",
        sa.Column("scopes", ARRAY(sa.String(16)), server_default=sa.text("'{read}'"), nullable=False),
    )
    op.add_column("api_keys", sa.Column("last_used_at", _MOMENT, nullable=True))
    op.add_column("sessions", sa.Column("last_used_at", _MOMENT, nullable=True))
    op.add_column("sessions", sa.Column("user_agent", sa.String(200), nullable=True))
    op.add_column("sessions", sa.Column("address", sa.String(45), nullable=True))
    # Signals from before there were orders are not waiting for one.
    op.add_column(
        "signals",
        sa.Column("status", sa.String(16), server_default=sa.text("'nothing_to_do'"), nullable=False),
    )
    op.alter_column("signals", "status", server_default=sa.text("'queued'"))
    op.add_column("signals", sa.Column("status_reason", sa.String(500), nullable=True))
    op.add_column("signals", sa.Column("taken_at", _MOMENT, nullable=True))
    op.add_column("signals", sa.Column("processed_at", _MOMENT, nullable=True))
    op.add_column("strategies", sa.Column("exchange_account_id", sa.Uuid(), nullable=True))
    op.add_column("strategies", sa.Column("secret_hash", sa.String(64), nullable=True))
    op.add_column(
        "strategies",
        sa.Column("symbols", ARRAY(sa.String(64)), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column(
        "strategies", sa.Column("sizing", sa.String(16), server_default=sa.text("'alert'"), nullable=False)
    )
    op.add_column("strategies", sa.Column("sizing_value", _AMOUNT, nullable=True))
    op.add_column("strategies", sa.Column("max_position", _AMOUNT, nullable=True))
    op.add_column("strategies", sa.Column("max_order_value", _AMOUNT, nullable=True))
    op.add_column("strategies", sa.Column("max_daily_loss", _AMOUNT, nullable=True))
    op.add_column("strategies", sa.Column("max_orders_per_minute", sa.Integer(), nullable=True))
    op.add_column("strategies", sa.Column("max_alert_age", sa.Integer(), nullable=True))
    op.add_column("strategies", sa.Column("model_name", sa.String(64), nullable=True))
    op.add_column(
        "strategies", sa.Column("model_mode", sa.String(8), server_default=sa.text("'off'"), nullable=False)
    )
    op.create_index(op.f("ix_strategies_exchange_account_id"), "strategies", ["exchange_account_id"])
    op.create_foreign_key(
        op.f("fk_strategies_exchange_account_id_exchange_accounts"),
        "strategies",
        "exchange_accounts",
        ["exchange_account_id"],
        ["id"],
        ondelete="RESTRICT",
    )
    op.add_column(
        "users", sa.Column("is_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )

    op.create_check_constraint(
        op.f("ck_signals_status_known"),
        "signals",
        "status IN ('queued', 'ordered', 'refused', 'vetoed', 'nothing_to_do', 'failed')",
    )
    op.create_check_constraint(
        op.f("ck_strategies_sizing_known"),
        "strategies",
        "sizing IN ('alert', 'fixed_quantity', 'fixed_quote', 'equity_percent')",
    )
    op.create_check_constraint(
        op.f("ck_strategies_sizing_has_value"), "strategies", "sizing = 'alert' OR sizing_value > 0"
    )
    op.create_check_constraint(
        op.f("ck_strategies_model_mode_known"), "strategies", "model_mode IN ('off', 'annotate', 'veto')"
    )
    op.create_check_constraint(
        op.f("ck_strategies_model_mode_has_model"),
        "strategies",
        "model_mode = 'off' OR model_name IS NOT NULL",
    )


def downgrade() -> None:
    """Go back. Columns take their constraints and indexes with them."""
    for table, columns in _ADDED_COLUMNS.items():
        for column in columns:
            op.drop_column(table, column)
    for table in _TABLES:
        op.drop_table(table)
