"""Alerts that were answered with an error are counted, by their reason, for their owner.

Earlier versions live with this: they do not know the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
lint_exceptions = {"prefer-text-field": "the lengths are limits of the code, too"}


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "rejected_alerts",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(200), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("times", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_rejected_alerts_user_id_users", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["strategy_id"],
            ["strategies.id"],
            name="fk_rejected_alerts_strategy_id_strategies",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rejected_alerts"),
        sa.UniqueConstraint("strategy_id", "kind", name="uq_rejected_alerts_strategy_id_kind"),
    )
    op.create_index(
        "ix_rejected_alerts_user_id_last_at_id",
        "rejected_alerts",
        ["user_id", sa.text("last_at DESC"), sa.text("id DESC")],
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("rejected_alerts")
