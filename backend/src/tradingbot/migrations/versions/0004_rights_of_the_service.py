"""The running service gets no more rights than its code uses.

Tables come with the right to read, add, change and delete rows for the role of the service, as the default
privileges of their owner say. What is recorded once is not changed later, and the schema's own tables are for
migrations. The name of the role is the installation's: whoever was granted a right and does not own the table
loses it.

Earlier versions live with this: they have never used these rights.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UNUSED = {
    "INSERT, UPDATE, DELETE": ("alembic_version", "schema_compatibility"),
    "UPDATE, DELETE": ("fills", "predictions", "refusals", "retired_refresh_tokens"),
    "UPDATE": ("events",),
    "DELETE": ("api_keys", "event_sequences", "orders", "positions", "signals", "users"),
}
_FOR_EACH_GRANTEE = """
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('{change}', relation.oid::regclass, granted.grantee::regrole)
        FROM pg_class AS relation, aclexplode(relation.relacl) AS granted
        WHERE relation.oid IN ({tables})
            AND granted.privilege_type = 'SELECT'
            AND granted.grantee NOT IN (0, relation.relowner){condition}
    LOOP
        EXECUTE statement;
    END LOOP;
END $$
"""
# Who may add rows to one of the tables that keep this right; a role that only reads may not.
_WRITES = """
            AND EXISTS (
                SELECT FROM pg_class AS other, aclexplode(other.relacl) AS theirs
                WHERE other.oid = 'outbox'::regclass
                    AND theirs.grantee = granted.grantee AND theirs.privilege_type = 'INSERT'
            )"""


def upgrade() -> None:
    """Go forward."""
    for rights, tables in _UNUSED.items():
        op.execute(_for_each_grantee(f"REVOKE {rights} ON %s FROM %s", tables))


def downgrade() -> None:
    """Go back."""
    for rights, tables in _UNUSED.items():
        op.execute(_for_each_grantee(f"GRANT {rights} ON %s TO %s", tables, _WRITES))


def _for_each_grantee(change: str, tables: tuple[str, ...], condition: str = "") -> str:
    names = ", ".join(f"to_regclass('{table}')" for table in tables)
    return _FOR_EACH_GRANTEE.format(change=change, tables=names, condition=condition)
