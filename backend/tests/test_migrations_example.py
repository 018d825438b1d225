"""The worked example of docs/migrations.md does what the page says."""

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Unmapped, mapped_column, unmapped_column

from tests.conftest import MakeDatabase
from tests.later_revisions import LaterRevisions
from tests.squawk import lint
from tradingbot.migrations.head import Revision, head_revision, revisions
from tradingbot.migrations.plan import upgrade_sql
from tradingbot.migrations.runner import MigrationSettings, migrate, state_of

PAGE = (Path(__file__).parents[2] / "docs" / "migrations.md").read_text()
MODULES = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def upgrade" in block]


@pytest.fixture
def example(later: LaterRevisions) -> list[Revision]:
    """The page's two revisions, after ours: renumbered, as ours go on growing."""
    before = int(head_revision())
    numbers = {f"{3 + step:04}": f"{before + step:04}" for step in range(3)}
    for module in MODULES:
        text = re.sub(r'"(000[345])"', lambda found: f'"{numbers[found[1]]}"', module)
        later.add_module(text)
    return revisions()[-2:]


def settings_for(url: str) -> MigrationSettings:
    return MigrationSettings.model_validate({"database_url": url})


async def test_both_columns_are_alike_until_one_goes(
    make_database: MakeDatabase, example: list[Revision]
) -> None:
    settings = settings_for(await asyncio.to_thread(make_database))
    expand, contract = (revision.number for revision in example)
    await migrate(settings, f"{int(expand) - 1:04}")
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    user = await connection.fetchval("INSERT INTO users (email) VALUES ('a@example.org') RETURNING id")

    async def add(column: str, value: str) -> None:
        statement = "INSERT INTO api_keys (user_id, {}, prefix, key_hash) VALUES ($1, $2, 'tbk_', $3)"
        await connection.execute(statement.format(column), user, value, value)

    async def rows(*columns: str) -> list[Any]:
        found = await connection.fetch("SELECT * FROM api_keys ORDER BY key_hash")
        return [tuple(row[column] for column in columns) for row in found]

    await add("name", "a")
    await migrate(settings, expand)
    assert (await state_of(settings)).oldest == "0001"
    await add("name", "b")  # by the version that still runs
    await add("label", "c")  # by the new one
    assert await rows("name", "label") == [("a", "a"), ("b", "b"), ("c", "c")]
    await connection.execute("UPDATE api_keys SET name = 'x' WHERE key_hash = 'a'")
    await connection.execute("UPDATE api_keys SET label = 'y' WHERE key_hash = 'b'")
    await connection.execute("UPDATE api_keys SET last_used_at = now()")
    assert await rows("name", "label") == [("x", "x"), ("y", "y"), ("c", "c")]

    await migrate(settings, contract)
    assert (await state_of(settings)).oldest == expand
    await add("label", "d")
    assert await rows("label") == [("x",), ("y",), ("c",), ("d",)]
    with pytest.raises(asyncpg.UndefinedColumnError):
        await add("name", "e")
    await connection.close()


async def test_the_expanding_release_can_be_taken_back(
    make_database: MakeDatabase, example: list[Revision]
) -> None:
    settings = settings_for(await asyncio.to_thread(make_database))
    expand = example[0].number
    await migrate(settings, expand)
    before = f"{int(expand) - 1:04}"
    assert await migrate(settings, before) == f"migrated {expand} -> {before}"


def test_squawk_takes_the_first_and_refuses_the_second(example: list[Revision], tmp_path: Path) -> None:
    found = []
    for revision in example:
        path = tmp_path / f"{revision.number}.sql"
        path.write_text(upgrade_sql(revision))
        found.append({finding.partition(":")[0] for finding in lint(path)})
    assert found[0] == set()
    # All of these a contracting revision may do; see the filter migration_problems.
    assert found[1] >= {"ban-drop-column", "ban-drop-function", "adding-not-nullable-field"}
    assert example[1].contract == example[0].number


def test_what_the_model_does_not_map_is_in_no_statement() -> None:
    assert "`name: Unmapped[str] = unmapped_column()`" in PAGE

    class Base(DeclarativeBase):
        pass

    class Key(Base):
        __tablename__ = "api_keys"

        id: Mapped[int] = mapped_column(primary_key=True)
        label: Mapped[str]
        name: Unmapped[str] = unmapped_column()

    statement = insert(Key).values(label="x")
    assert "name" in Key.__table__.columns
    assert "name" not in str(Key.__mapper__.attrs.keys())
    assert "name" not in str(statement)
