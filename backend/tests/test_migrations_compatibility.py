"""Which versions can live with which schema: what a migration writes down, and who goes by it."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import MakeDatabase
from tests.later_revisions import LaterRevisions
from tradingbot.cli.main import main
from tradingbot.cli.steps import StepError, check_schema
from tradingbot.core.settings import Settings
from tradingbot.migrations import runner
from tradingbot.migrations.head import FIRST, head_revision, oldest_for, revisions
from tradingbot.migrations.runner import MigrationRefusedError, MigrationSettings, migrate, state_of
from tradingbot.migrations.state import SchemaState

HEAD = head_revision()
NEXT = f"{int(HEAD) + 1:04}"


@pytest.fixture
async def url(make_database: MakeDatabase) -> str:
    """An empty database."""
    return await asyncio.to_thread(make_database)


@pytest.fixture
def settings(url: str) -> MigrationSettings:
    return MigrationSettings.model_validate({"database_url": url})


async def fetch(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("current", "oldest", "problem"),
    [
        (HEAD, FIRST, None),
        (HEAD, None, None),
        (None, None, f"at nothing, {HEAD} is needed: run `tradingbot migrate`"),
        ("0001", None, f"at 0001, {HEAD} is needed: run `tradingbot migrate`"),
        ("9999", FIRST, None),
        ("9999", HEAD, None),
        ("9999", NEXT, f"at 9999, which has moved past this version, whose head is {HEAD}: "
         f"a version whose head is {NEXT} or later is needed"),
        ("9999", None, f"at 9999, which has moved past this version, whose head is {HEAD}: "
         "a version whose head is 9999 or later is needed"),
    ],
)  # fmt: skip
def test_what_can_live_with_what(current: str | None, oldest: str | None, problem: str | None) -> None:
    assert SchemaState(current, oldest).problem == problem


async def test_the_schema_says_who_can_live_with_it(
    url: str, settings: MigrationSettings, later: LaterRevisions
) -> None:
    await migrate(settings)
    assert await state_of(settings) == (HEAD, FIRST)
    expand = later.add("ALTER TABLE users ADD COLUMN nick text", "ALTER TABLE users DROP COLUMN nick")
    await migrate(settings)
    assert await state_of(settings) == (expand, FIRST)
    contract = later.add(
        "ALTER TABLE users DROP COLUMN is_active",
        "ALTER TABLE users ADD COLUMN is_active boolean",
        f'contract = "{expand}"',
    )
    last = later.add("CREATE TABLE more ()", "DROP TABLE more")
    await migrate(settings)
    assert await state_of(settings) == (last, expand)

    await migrate(settings, contract)
    assert await state_of(settings) == (contract, expand)
    await migrate(settings, expand)
    assert await state_of(settings) == (expand, FIRST)
    await migrate(settings, "0002")
    assert await state_of(settings) == ("0002", None)
    assert await fetch(url, "SELECT to_regclass('schema_compatibility')") is None


async def test_what_the_schema_says_changes_with_the_schema(
    settings: MigrationSettings, later: LaterRevisions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction: a schema that says the wrong thing is never there."""
    await migrate(settings)
    later.add("CREATE TABLE more ()", said='contract = "0002"')
    monkeypatch.setattr(runner, "oldest_for", lambda _number: None)
    with pytest.raises(Exception, match="null value in column"):
        await migrate(settings)
    assert await state_of(settings) == (HEAD, FIRST)


async def migrated_by_a_later_version(
    settings: MigrationSettings, later: LaterRevisions, *, contract: bool
) -> str:
    expand = later.add("ALTER TABLE users ADD COLUMN nick text")
    newest = later.add("CREATE TABLE more ()", said=f'contract = "{expand}"' if contract else "")
    await migrate(settings)
    later.forget()
    return newest


async def test_a_version_leaves_a_later_schema_that_it_can_live_with_as_it_is(
    url: str,
    settings: MigrationSettings,
    later: LaterRevisions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    newest = await migrated_by_a_later_version(settings, later, contract=False)
    holder = await asyncpg.connect(url)
    await holder.execute(f"SELECT pg_advisory_lock({runner.ADVISORY_LOCK})")
    monkeypatch.setenv("DATABASE_URL", url)
    capsys.readouterr()  # what was logged so far
    for arguments, end in ((["migrate"], ": nothing to do\n"), (["migrate", "--check"], "\n")):
        assert await asyncio.to_thread(main, arguments) == 0
        said = capsys.readouterr().out
        assert said == f"schema at {newest}, later than head {HEAD}, which can live with it{end}"
    await holder.close()
    assert (await state_of(settings)).current == newest
    assert await fetch(url, "SELECT to_regclass('more') IS NOT NULL")


async def test_a_version_refuses_a_schema_that_has_moved_past_it(
    url: str,
    settings: MigrationSettings,
    later: LaterRevisions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    newest = await migrated_by_a_later_version(settings, later, contract=True)
    monkeypatch.setenv("DATABASE_URL", url)
    refusal = (
        f"schema is at {newest}, which has moved past this version, whose head is {HEAD}:"
        f" a version whose head is {NEXT} or later is needed\n"
    )
    assert await asyncio.to_thread(main, ["migrate"]) == 1
    assert capsys.readouterr().err == refusal
    assert await asyncio.to_thread(main, ["migrate", "--check"]) == 1
    assert capsys.readouterr().out == refusal
    assert (await state_of(settings)).current == newest


async def test_nobody_goes_where_this_version_does_not_know_the_way(
    url: str,
    settings: MigrationSettings,
    later: LaterRevisions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    newest = await migrated_by_a_later_version(settings, later, contract=False)
    monkeypatch.setenv("DATABASE_URL", url)
    for target, why in (
        ("0001", f"schema is at {newest}, which this version does not know (its newest is {HEAD})"),
        ("base", "only a version that knows it can go back from it"),
        ("9999", f"there is no revision 9999; the newest is {HEAD}"),
    ):
        assert await asyncio.to_thread(main, ["migrate", "--downgrade", target]) == 1
        assert why in capsys.readouterr().err
    assert (await state_of(settings)).current == newest
    with pytest.raises(MigrationRefusedError):
        await migrate(settings, "0001")


class TestWhoWaitsForTheSchema:
    """`serve` and the worker (by `check_schema`), and readiness."""

    @pytest.fixture
    def settings(self, environment: dict[str, str]) -> Settings:
        return Settings()

    @pytest.fixture
    async def says(self, settings: Settings, owner_url: str) -> Any:
        """Lets the schema say another revision and oldest head, until the test is over."""
        connection = await asyncpg.connect(owner_url)

        async def say(current: str, oldest: str) -> None:
            await connection.execute("UPDATE alembic_version SET version_num = $1", current)
            await connection.execute("UPDATE schema_compatibility SET oldest = $1", oldest)

        yield say
        await say(HEAD, FIRST)
        await connection.close()

    async def test_later_and_compatible(
        self, settings: Settings, client: httpx.AsyncClient, says: Any
    ) -> None:
        await says("9999", HEAD)
        assert await check_schema(settings) == "schema at 9999"
        answer = await client.get("/api/v1/health/ready")
        assert (answer.status_code, answer.json()["checks"]["schema"]) == (200, "ok")

    @pytest.mark.parametrize(
        ("current", "oldest", "why"),
        [
            ("9999", "9998", "a version whose head is 9998 or later is needed"),
            ("0002", "0001", "run `tradingbot migrate`"),
        ],
    )
    async def test_not_to_be_lived_with(
        self, settings: Settings, client: httpx.AsyncClient, says: Any, current: str, oldest: str, why: str
    ) -> None:
        await says(current, oldest)
        with pytest.raises(StepError, match=f"^schema is at {current}, .*{why}$"):
            await check_schema(settings)
        answer = await client.get("/api/v1/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["schema"].endswith(why)


class TestWhatRevisionsSay:
    """Read from the source, so that nothing of Alembic is imported."""

    def test_ours(self) -> None:
        assert [one.number for one in revisions()] == [f"{n + 1:04}" for n in range(int(HEAD))]
        assert revisions()[-1].number == HEAD
        assert oldest_for(HEAD) == FIRST

    def test_annotated(self, later: LaterRevisions) -> None:
        number = later.add("SELECT 1", said='contract: str = "0002"')
        assert (revisions()[-1].contract, oldest_for(number), oldest_for(HEAD)) == ("0002", "0002", FIRST)

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            ('contract = "3"', "an earlier revision, as four digits"),
            ("contract = 3", "an earlier revision, as four digits"),
            (f'contract = "{NEXT}"', "an earlier revision"),
            ('contract = "0000"', "an earlier revision"),
            ("contract = str(3)", "contract must be written out"),
            ('lint_exceptions = ["ban-drop-column"]', "a dict of rule and reason"),
            ('lint_exceptions = {"ban-drop-column": ""}', "a dict of rule and reason"),
        ],
    )
    def test_nonsense_is_refused_by_name(self, later: LaterRevisions, said: str, why: str) -> None:
        number = later.add("SELECT 1", said=said)
        with pytest.raises(ValueError, match=f"{number}_later.py: .*{why}"):
            revisions()
