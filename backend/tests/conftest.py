"""Fixtures: real servers, a database by the real migrations and emptied for each test, the application."""

import asyncio
import base64
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from hypothesis import settings as hypothesis_settings
from redis import Redis
from sqlalchemy import text

from tests import servers
from tests.later_revisions import LaterRevisions
from tradingbot.api_keys import service as api_keys
from tradingbot.app import create_app
from tradingbot.core.database import Database
from tradingbot.core.settings import DatabaseSettings, Settings
from tradingbot.migrations.metadata import metadata
from tradingbot.migrations.models import SchemaCompatibility
from tradingbot.migrations.runner import MigrationSettings, migrate
from tradingbot.strategies import service as strategies
from tradingbot.strategies.schemas import StrategyIn
from tradingbot.users import service as users

# A deadline would make a busy machine fail tests that are right.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

SECRET_KEY = secrets.token_urlsafe(48)
WEBHOOK_SECRET = secrets.token_urlsafe(24)
ENCRYPTION_KEY = base64.urlsafe_b64encode(bytes(range(100, 132))).decode()

ResultT = TypeVar("ResultT")


class Account(NamedTuple):
    """A user with one strategy and one API key."""

    email: str
    token: str
    api_key: str

    @property
    def webhook(self) -> str:
        """Path of the strategy's webhook."""
        return f"/api/v1/webhooks/tradingview/{self.token}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers that a reader sends."""
        return {"X-API-Key": self.api_key}


@pytest.fixture(autouse=True)
def log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that a test sets, as every command does, ends with the test."""
    monkeypatch.setattr("tradingbot.core.logging._threshold", logging.INFO)


def execute(url: str, *statements: str) -> None:
    """Runs statements on a connection of their own."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    with servers.postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with servers.redis() as url:
        yield url


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaterRevisions]:
    """Versions after this one."""
    revisions = LaterRevisions(tmp_path, monkeypatch)
    yield revisions
    revisions.forget()


class MakeDatabase:
    """Makes empty databases, and the role that the service has in an installation."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._names: list[str] = []
        self._service, self._password = f"service_{secrets.token_hex(6)}", secrets.token_hex(12)
        execute(server, f"CREATE ROLE {self._service} LOGIN PASSWORD '{self._password}'")

    def __call__(self) -> str:
        name = f"test_{secrets.token_hex(6)}"
        execute(self._server, f"CREATE DATABASE {name}")
        self._names.append(name)
        return f"{self._server.rpartition('/')[0]}/{name}"

    def give_rights(self, url: str) -> None:
        """Lets the service's role do with tables to come what it may in an installation: roles/postgres."""
        to_come = "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT"
        execute(
            url,
            f"REVOKE ALL ON DATABASE {url.rpartition('/')[2]} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {url.rpartition('/')[2]} TO {self._service}",
            f"{to_come} SELECT, INSERT, UPDATE, DELETE ON TABLES TO {self._service}",
            f"{to_come} USAGE ON SEQUENCES TO {self._service}",
        )

    def as_service(self, url: str) -> str:
        """Return the URL of the same database with the service's role."""
        return f"postgresql://{self._service}:{self._password}@{url.rpartition('@')[2]}"

    def drop_all(self) -> None:
        """Removes what was made."""
        databases = (f"DROP DATABASE {name} WITH (FORCE)" for name in self._names)
        execute(self._server, *databases, f"DROP ROLE {self._service}")


@pytest.fixture(scope="session")
def make_database(postgresql_url: str) -> Iterator[MakeDatabase]:
    maker = MakeDatabase(postgresql_url)
    yield maker
    maker.drop_all()


@pytest.fixture(scope="session")
def owner_url(make_database: MakeDatabase) -> str:
    """A database with the schema, as its owner: for what a test does to a table, and the service must not."""
    url = make_database()
    make_database.give_rights(url)
    asyncio.run(migrate(MigrationSettings(database_url=url)))
    return url


@pytest.fixture(scope="session")
def migrated_url(make_database: MakeDatabase, owner_url: str) -> str:
    """The same as the service sees it: whatever our code does, it does with these rights alone."""
    return make_database.as_service(owner_url)


class Clerk:
    """What is done to the migrated database before a test, on a connection that stays open between tests.

    A new connection costs PostgreSQL a process, and TRUNCATE new files for each table and index: together
    twenty times the work of deleting the few rows that a test leaves.
    """

    # Whoever refers to others comes first, so that nothing is left to cascade.
    _EMPTY = "; ".join(
        str(table.delete())
        for table in reversed(metadata.sorted_tables)
        if table.name != SchemaCompatibility.__tablename__
    )

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._database = Database(DatabaseSettings.model_validate({"database_url": url}))

    def run(self, work: Callable[[Database], Awaitable[ResultT]]) -> ResultT:
        """Runs *work*; not within a running loop."""

        async def awaited() -> ResultT:
            return await work(self._database)

        return self._runner.run(awaited())

    def empty(self) -> None:
        """Deletes all rows but what the migrations wrote."""
        self.run(self._empty)

    async def _empty(self, database: Database) -> None:
        async with database.transaction() as session:
            await session.execute(text(f"DO $$ BEGIN {self._EMPTY}; END $$"))

    def close(self) -> None:
        """Closes the connection."""
        self._runner.run(self._database.close())
        self._runner.close()


@pytest.fixture(scope="session")
def clerk(owner_url: str) -> Iterator[Clerk]:
    clerk = Clerk(owner_url)
    yield clerk
    clerk.close()


@pytest.fixture
def database_url(migrated_url: str, clerk: Clerk) -> str:
    clerk.empty()
    return migrated_url


@pytest.fixture
def environment(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The variables of a complete configuration, set for this test; Redis is emptied."""
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    variables = {
        "ENVIRONMENT": "test",
        "SECRETS_DIR": str(tmp_path / "secrets"),
        "DATABASE_URL": database_url,
        # As many as by default, but only one of them is opened before it is needed.
        "DATABASE_POOL_SIZE": "1",
        "DATABASE_MAX_OVERFLOW": "5",
        "REDIS_URL": redis_url,
        "SECRET_KEY": SECRET_KEY,
        "WEBHOOK_SECRET": WEBHOOK_SECRET,
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
        "LOGS_DIR": str(tmp_path / "logs"),
        "MODELS_DIR": str(tmp_path / "models"),
        "CACHE_DIR": str(tmp_path / "cache"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def unhurried(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of many requests at once: on a busy machine, none is turned away for its time.

    How soon it would be is tested where a server is slow or silent.
    """
    for name in ("WEBHOOK_TIMEOUT", "DATABASE_POOL_TIMEOUT", "DATABASE_CONNECT_TIMEOUT"):
        monkeypatch.setenv(name, "60")


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return Settings()


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as http:
        yield http


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client that speaks to the application without a network."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def make_account(settings: Settings, email: str) -> Account:
    """Makes a user with a strategy and an API key."""
    database = Database(settings)
    account = await _make_account(database, settings, email)
    await database.close()
    return account


async def _make_account(database: Database, settings: Settings, email: str) -> Account:
    key = settings.secret_key.get_secret_value()
    async with database.transaction() as session:
        user = await users.get_or_create(session, email)
        _, token = await strategies.make(session, user.id, StrategyIn(name="first"), key)
        _, api_key = await api_keys.create(session, user.id, "first", key)
    return Account(email, token, api_key)


@pytest.fixture
def account(settings: Settings, clerk: Clerk) -> Account:
    return clerk.run(lambda database: _make_account(database, settings, "trader@mail.test"))
