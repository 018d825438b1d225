"""`tradingbot migrate --plan`, and what squawk says of the SQL of our revisions."""

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conftest import MakeDatabase, execute
from tests.later_revisions import LaterRevisions
from tests.squawk import lint
from tradingbot.cli.main import main
from tradingbot.core.database import database_url as to_sqlalchemy
from tradingbot.migrations.head import Revision, head_revision, revisions
from tradingbot.migrations.metadata import metadata
from tradingbot.migrations.plan import NotShownError, plan, upgrade_sql
from tradingbot.migrations.runner import ADVISORY_LOCK, MigrationSettings, migrate
from tradingbot.migrations.state import SchemaState

HEAD = head_revision()


@pytest.fixture
def url(make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database, which commands go to."""
    made = make_database()
    monkeypatch.setenv("DATABASE_URL", made)
    return made


def test_of_nothing_is_all_and_changes_nothing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--plan"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {**shown, "pending": len(shown["pending"])} == {
        "current": None,
        "head": HEAD,
        "oldest": None,
        "pending": int(HEAD),
    }
    first = shown["pending"][0]
    assert {**first, "sql": ""} == {"revision": "0001", "name": "first_tables", "contract": None, "sql": ""}
    assert "CREATE TABLE users (" in first["sql"]
    assert "TABLE alembic_version" not in "".join(one["sql"] for one in shown["pending"])

    async def tables() -> int:
        connection = await asyncpg.connect(url)
        try:
            found = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            return int(found)
        finally:
            await connection.close()

    assert asyncio.run(tables()) == 0


async def test_the_sql_is_what_migrate_does(make_database: MakeDatabase) -> None:
    url = await asyncio.to_thread(make_database)
    for one in plan(SchemaState(None, None))["pending"]:
        await asyncio.to_thread(execute, url, one["sql"])
    engine = create_async_engine(to_sqlalchemy(MigrationSettings.model_validate({"database_url": url})))
    async with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts=options), metadata)
        )
    await engine.dispose()
    assert differences == []


async def test_waits_for_no_lock(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = await asyncio.to_thread(make_database)
    monkeypatch.setenv("DATABASE_URL", url)
    await migrate(MigrationSettings.model_validate({"database_url": url}), "0002")
    capsys.readouterr()  # what was logged so far
    somebody = await asyncpg.connect(url)
    await somebody.execute(f"SELECT pg_advisory_lock({ADVISORY_LOCK})")
    async with somebody.transaction():
        await somebody.execute("LOCK TABLE users, outbox IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(main, ["migrate", "--plan"]) == 0
    await somebody.close()
    shown = json.loads(capsys.readouterr().out)
    assert shown["current"] == "0002"
    assert [one["revision"] for one in shown["pending"]] == [
        one.number for one in revisions() if one.number > "0002"
    ]


@pytest.mark.parametrize("current", [HEAD, "9999"])
def test_at_head_and_beyond_there_is_nothing(current: str) -> None:
    assert plan(SchemaState(current, "0002")) == {
        "current": current,
        "head": HEAD,
        "oldest": "0002",
        "pending": [],
    }


def test_what_a_revision_says_of_itself_is_in_the_plan(later: LaterRevisions) -> None:
    later.add(
        "ALTER TABLE users DROP COLUMN is_active",
        said='contract = "0003"\nlint_exceptions = {"ban-set-default": "a\\nreason"}',
    )
    (one,) = plan(SchemaState(HEAD, "0001"))["pending"]
    assert one["contract"] == "0003"
    assert one["sql"] == (
        "-- a reason\n-- squawk-ignore-file ban-set-default\nALTER TABLE users DROP COLUMN is_active;\n"
    )


def test_a_revision_that_asks_the_database_is_named(
    url: str, later: LaterRevisions, capsys: pytest.CaptureFixture[str]
) -> None:
    number = later.add("SELECT 1")
    path = next(path for path in Path(later.folder).glob(f"{number}_*.py"))
    path.write_text(path.read_text().replace("op.execute('SELECT 1')", "op.get_bind().scalar(None)", 1))
    with pytest.raises(NotShownError):
        plan(SchemaState(HEAD, None))
    assert main(["migrate", "--plan"]) == 1
    said = capsys.readouterr()
    assert f"revision {number} (later) cannot be rendered as SQL: AttributeError" in said.err
    assert "A revision must do without asking the database" in said.err
    assert said.out == ""


@pytest.mark.parametrize("revision", revisions(), ids=lambda one: f"{one.number}_{one.name}")
def test_squawk_finds_nothing_in(revision: Revision, tmp_path: Path) -> None:
    """What the revision's `lint_exceptions` name, with their reasons, does not count."""
    path = tmp_path / f"{revision.number}.sql"
    path.write_text(upgrade_sql(revision))
    assert lint(path) == []


@pytest.mark.parametrize(
    "revision", [one for one in revisions() if one.lint_exceptions], ids=lambda one: one.number
)
def test_every_exception_is_needed(revision: Revision, tmp_path: Path) -> None:
    path = tmp_path / f"{revision.number}.sql"
    path.write_text(upgrade_sql(revision._replace(lint_exceptions={})))
    assert {finding.partition(":")[0] for finding in lint(path)} == set(revision.lint_exceptions)


@pytest.mark.parametrize(
    ("statement", "rules"),
    [
        ("ALTER TABLE users ADD COLUMN nick text", []),
        ("ALTER TABLE users ADD COLUMN nick text DEFAULT '' NOT NULL", []),
        ("ALTER TABLE users ADD COLUMN nick text NOT NULL", ["adding-required-field"]),
        ("ALTER TABLE users ADD COLUMN nick text DEFAULT '' UNIQUE", ["ban-new-write-restriction"]),
        ("ALTER TABLE users DROP COLUMN is_active", ["ban-drop-column"]),
        ("ALTER TABLE users RENAME COLUMN email TO mail", ["renaming-column"]),
        ("CREATE INDEX ix ON users (email)", ["require-concurrent-index-creation"]),
        ("ALTER TABLE users ADD CONSTRAINT c CHECK (email <> '') NOT VALID", ["ban-new-write-restriction"]),
    ],
)
def test_a_new_revision_is_held_to_the_rules(
    later: LaterRevisions, tmp_path: Path, statement: str, rules: list[str]
) -> None:
    later.add(statement)
    path = tmp_path / "new.sql"
    path.write_text(upgrade_sql(revisions()[-1]))
    assert {finding.partition(":")[0] for finding in lint(path)} >= set(rules)
    assert bool(lint(path)) == bool(rules)
