"""Fills know a fee in an asset of which no price is known.

Earlier versions live with this: they do not name the column, and book such a fee as 0, as they did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column(
        "fills", sa.Column("unvalued_fee", sa.Numeric(38, 18), server_default=sa.text("0"), nullable=False)
    )


def downgrade() -> None:
    """Go back."""
    op.drop_column("fills", "unvalued_fee")
