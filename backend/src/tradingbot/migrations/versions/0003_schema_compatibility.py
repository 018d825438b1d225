"""Which versions can live with the schema: a row that migrations keep."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "schema_compatibility",
        sa.Column("only_row", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("oldest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("only_row", name=op.f("pk_schema_compatibility")),
        sa.CheckConstraint("only_row", name=op.f("ck_schema_compatibility_one_row")),
    )


def downgrade() -> None:
    """Go back."""
    op.drop_table("schema_compatibility")
