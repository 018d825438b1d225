"""Positions know the least quantity that their market takes of an exit: what is less is dust.

Earlier versions live with this: they do not name the column, and its default means that nothing is dust.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column(
        "positions",
        sa.Column("min_quantity", sa.Numeric(38, 18), server_default=sa.text("0"), nullable=False),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_column("positions", "min_quantity")
