"""Alembic runs this; the connection comes from `tradingbot.migrations.runner`."""

from alembic import context
from sqlalchemy import Connection

from tradingbot.migrations.metadata import metadata

connection = context.config.attributes["connection"]
if not isinstance(connection, Connection):
    raise TypeError("run migrations with `tradingbot migrate`")

context.configure(
    connection=connection, target_metadata=metadata, compare_type=True, compare_server_default=True
)
with context.begin_transaction():
    context.run_migrations()
