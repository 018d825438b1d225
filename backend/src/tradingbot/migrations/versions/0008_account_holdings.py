"""What exchange accounts hold of each market, so that what differs from the book is known by all processes.

Earlier versions live with this: they do not know the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
lint_exceptions = {"prefer-text-field": "the lengths are those of symbols"}


# The service never deletes a row: see 0004.
_NO_DELETE = """
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE DELETE ON account_holdings FROM %s', granted.grantee::regrole)
        FROM pg_class AS relation, aclexplode(relation.relacl) AS granted
        WHERE relation.oid = 'account_holdings'::regclass
            AND granted.privilege_type = 'DELETE'
            AND granted.grantee NOT IN (0, relation.relowner)
    LOOP
        EXECUTE statement;
    END LOOP;
END $$
"""


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "account_holdings",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("exchange_account_id", sa.Uuid(), nullable=False),
        sa.Column("market", sa.String(64), nullable=False),
        sa.Column("asset", sa.String(64), nullable=False),
        sa.Column("quantity", sa.Numeric(38, 18), nullable=False),
        sa.Column("booked", sa.Numeric(38, 18), nullable=False),
        sa.Column("differs_since", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["exchange_account_id"],
            ["exchange_accounts.id"],
            name="fk_account_holdings_exchange_account_id_exchange_accounts",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_account_holdings"),
        sa.UniqueConstraint(
            "exchange_account_id", "market", name="uq_account_holdings_exchange_account_id_market"
        ),
    )
    op.execute(_NO_DELETE)


def downgrade() -> None:
    """Go back."""
    op.drop_table("account_holdings")
