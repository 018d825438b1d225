"""The default paper account goes long and short, as it did: it is one of futures.

Its market meant nothing before, and was `spot`; a paper account of `spot` holds no shorts now. Earlier
versions live with this: the market of a paper account means nothing to them. A default account that one of
them still makes is turned when it is first used.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.execute("UPDATE exchange_accounts SET market = 'future' WHERE is_default AND market = 'spot'")


def downgrade() -> None:
    """Go back: nothing depends on it."""
