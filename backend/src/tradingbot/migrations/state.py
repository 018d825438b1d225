"""Where the schema is, and whether this version can live with it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from tradingbot.migrations.head import head_revision

# Gives the first row of a query; each driver has its own way.
FetchRow = Callable[[str], Awaitable[Sequence[Any] | None]]

_TABLES = "SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('schema_compatibility') IS NOT NULL"
_BOTH = "SELECT (SELECT version_num FROM alembic_version), (SELECT oldest FROM schema_compatibility)"
_REVISION = "SELECT (SELECT version_num FROM alembic_version), NULL"


class SchemaState(NamedTuple):
    """The schema's revision (None: there is no schema), and the oldest head that can live with it.

    Revisions are four digits and compare as text. `oldest` is None before revision 0003.
    """

    current: str | None
    oldest: str | None

    @property
    def problem(self) -> str | None:
        """What goes on after "schema is" if this version cannot live with it, and what to do; else None."""
        head = head_revision()
        if self.current == head:
            return None
        if self.current is None or self.current < head:
            return f"at {self.current or 'nothing'}, {head} is needed: run `tradingbot migrate`"
        needed = self.oldest or self.current
        if needed <= head:
            return None
        return (
            f"at {self.current}, which has moved past this version, whose head is {head}:"
            f" a version whose head is {needed} or later is needed"
        )

    @property
    def is_newer(self) -> bool:
        """Whether a later version has migrated the schema."""
        return self.current is not None and self.current > head_revision()


async def read_state(fetch_row: FetchRow) -> SchemaState:
    """Asks the database; changes nothing."""
    versioned, tells_oldest = await fetch_row(_TABLES) or (False, False)
    if not versioned:
        return SchemaState(None, None)
    current, oldest = await fetch_row(_BOTH if tells_oldest else _REVISION) or (None, None)
    return SchemaState(current, oldest)
