"""What a migration would do, as SQL: for people and for a linter, before anything is changed."""

import io
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from tradingbot.migrations.head import Revision, head_revision, revisions
from tradingbot.migrations.scripts import alembic_config
from tradingbot.migrations.state import SchemaState


class NotShownError(Exception):
    """A revision cannot be rendered as SQL; the message names it."""


def plan(state: SchemaState) -> dict[str, Any]:
    """Gives what `migrate` would do to a schema: as JSON, with the SQL of each revision to come.

    Raises:
        NotShownError: a revision needs a database to be rendered.
    """
    return {
        "current": state.current,
        "head": head_revision(),
        "oldest": state.oldest,
        "pending": [
            {"revision": one.number, "name": one.name, "contract": one.contract, "sql": upgrade_sql(one)}
            for one in revisions()
            if state.current is None or one.number > state.current
        ],
    }


def upgrade_sql(revision: Revision) -> str:
    """Renders one revision without a database; rules that do not count for it are named in its first lines.

    Raises:
        NotShownError: it asks the database, or fails in another way.
    """
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer}
    )
    try:
        module: Any = ScriptDirectory.from_config(alembic_config()).get_revision(revision.number).module
        with Operations.context(context):
            module.upgrade()
    except Exception as error:
        raise NotShownError(
            f"revision {revision.number} ({revision.name}) cannot be rendered as SQL:"
            f" {type(error).__name__}: {error}. A revision must do without asking the database"
        ) from error
    return _exceptions(revision) + buffer.getvalue().strip() + "\n"


def _exceptions(revision: Revision) -> str:
    return "".join(
        f"-- {' '.join(why.split())}\n-- squawk-ignore-file {rule}\n"
        for rule, why in revision.lint_exceptions.items()
    )
