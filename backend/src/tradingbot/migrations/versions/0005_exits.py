"""Positions know the least exit that their market takes, rows of the outbox their symbol and priority.

Signals know whether they only close, orders when a person said what became of them, and halts whether they
flatten.

What is less than the least is dust. Earlier versions live with this: they name none of the columns. By the
default of the first nothing is dust. The symbol is empty in the rows that they add, and later versions keep
the order of such rows by their strategy. No row of theirs is urgent, and no halt flattens.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
lint_exceptions = {
    "prefer-text-field": "the lengths are limits that the API names, too",
    "require-concurrent-index-creation": "rows are deleted when their work is done",
}


def upgrade() -> None:
    """Go forward."""
    op.add_column(
        "positions",
        sa.Column("min_quantity", sa.Numeric(38, 18), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("outbox", sa.Column("symbol", sa.String(64), server_default=sa.text("''"), nullable=False))
    op.add_column(
        "outbox", sa.Column("priority", sa.BigInteger(), server_default=sa.text("1"), nullable=False)
    )
    op.add_column("halts", sa.Column("flatten", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column(
        "signals", sa.Column("reduce_only", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("orders", sa.Column("settled_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_outbox_strategy_id_priority_symbol_id", "outbox", ["strategy_id", "priority", "symbol", "id"]
    )


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_outbox_strategy_id_priority_symbol_id", "outbox")
    op.drop_column("orders", "settled_at")
    op.drop_column("signals", "reduce_only")
    op.drop_column("halts", "flatten")
    op.drop_column("outbox", "priority")
    op.drop_column("outbox", "symbol")
    op.drop_column("positions", "min_quantity")
