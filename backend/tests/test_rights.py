"""What the role of the running service may do to the schema and to what is recorded: what its code does."""

import asyncio

import asyncpg
import pytest

from tests.conftest import MakeDatabase, execute
from tests.later_revisions import LaterRevisions
from tradingbot.cli.main import main
from tradingbot.migrations.metadata import TABLES
from tradingbot.migrations.runner import MigrationSettings, migrate

# What a table allows beyond SELECT and INSERT; every other one allows both.
CHANGES = {
    "account_holdings": "UPDATE",
    "api_keys": "UPDATE",
    "event_sequences": "UPDATE",
    "events": "DELETE",
    "fills": "",
    "orders": "UPDATE",
    "positions": "UPDATE",
    "predictions": "",
    "refusals": "",
    "retired_refresh_tokens": "",
    "signals": "UPDATE",
    "users": "UPDATE",
}
# Migrations write these two.
READ_ONLY = {"alembic_version", "schema_compatibility"}
RIGHTS = """
SELECT relname, string_agg(name, ', ' ORDER BY place)
FROM pg_class, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[])
    WITH ORDINALITY AS wanted (name, place)
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND has_table_privilege(oid, name)
GROUP BY relname
"""


async def rights(url: str) -> dict[str, str]:
    """Return what the role of the URL may do with each table."""
    connection = await asyncpg.connect(url)
    found = dict(await connection.fetch(RIGHTS))
    await connection.close()
    return found


def expected(table: str) -> str:
    if table in READ_ONLY:
        return "SELECT"
    changes = CHANGES.get(table, "UPDATE, DELETE")
    return f"SELECT, INSERT, {changes}" if changes else "SELECT, INSERT"


async def test_each_table_allows_what_the_code_does(migrated_url: str) -> None:
    names = READ_ONLY | {table.__tablename__ for table in TABLES}
    assert await rights(migrated_url) == {name: expected(name) for name in names}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP SCHEMA public CASCADE",
        "DROP TABLE signals",
        "CREATE TABLE more ()",
        "CREATE TEMPORARY TABLE more ()",
        "ALTER TABLE signals ADD COLUMN more text",
        "TRUNCATE signals CASCADE",
        "CREATE SCHEMA more",
        "CREATE ROLE more",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM fills",
        "UPDATE events SET sequence = 0",
    ],
)
def test_the_service_cannot(migrated_url: str, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(migrated_url, statement)


async def test_a_table_of_a_later_revision_is_usable_and_no_migration_runs_as_the_service(
    make_database: MakeDatabase,
    later: LaterRevisions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = await asyncio.to_thread(make_database)
    await asyncio.to_thread(make_database.give_rights, url)
    as_service = make_database.as_service(url)
    later.add("CREATE TABLE more (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
    monkeypatch.setenv("DATABASE_URL", as_service)
    assert await asyncio.to_thread(main, ["migrate"]) == 1
    said = capsys.readouterr().err
    assert "permission denied for schema public" in said
    assert "The role in DATABASE_URL does not own the schema." in said
    await migrate(MigrationSettings.model_validate({"database_url": url}))
    await asyncio.to_thread(
        execute,
        as_service,
        "INSERT INTO more (note) VALUES ('a')",
        "UPDATE more SET note = 'b'",
        "DELETE FROM more",
    )


async def test_going_back_gives_the_rights_back_to_who_writes_only(make_database: MakeDatabase) -> None:
    url = await asyncio.to_thread(make_database)
    await asyncio.to_thread(make_database.give_rights, url)
    settings = MigrationSettings.model_validate({"database_url": url})
    await migrate(settings)
    narrow = await rights(make_database.as_service(url))
    await migrate(settings, "0003")
    assert set((await rights(make_database.as_service(url))).values()) == {"SELECT, INSERT, UPDATE, DELETE"}
    await migrate(settings)
    assert await rights(make_database.as_service(url)) == narrow
