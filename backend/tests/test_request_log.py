"""What is logged of requests and statements: when, with which id, and never with a secret."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from tests.conftest import Account, client_of
from tradingbot.app import create_app
from tradingbot.core.database import Database
from tradingbot.core.direct import DirectConnection
from tradingbot.core.errors import UnavailableError
from tradingbot.core.logging import configure_logging
from tradingbot.core.settings import Settings

Lines = list[dict[str, Any]]


def logged(capsys: pytest.CaptureFixture[str], event: str | None = None) -> Lines:
    """The lines since the last time, all or those of an event."""
    lines: Lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if event in (None, line["event"])]


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """An application to which everything is slow."""
    application = create_app(settings.model_copy(update={"slow_query_ms": 0, "slow_request_ms": 0}))
    async with application.router.lifespan_context(application):
        yield application


async def test_all_lines_of_a_request_have_the_id_that_its_client_gets(
    client: httpx.AsyncClient, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(capsys)
    for path, status in (("/api/v1/signals", 200), ("/api/v1/signals?limit=0", 422)):
        answer = await client.get(path, headers=account.headers)
        assert answer.status_code == status
        lines = [line for line in logged(capsys) if line["logger"] != "httpx"]
        assert {line["event"] for line in lines} == {"slow query", "slow request"}
        assert {line["request_id"] for line in lines} == {answer.headers["x-request-id"]}
        if status == 422:
            assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_slow_request_is_logged_with_its_time_and_without_its_secrets(
    client: httpx.AsyncClient, account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.post(account.webhook, json={"symbol": "A", "action": "buy", "comment": "hush-1234"})
    output = capsys.readouterr().out
    lines = [json.loads(line) for line in output.splitlines()]
    (line,) = [line for line in lines if line["event"] == "slow request"]
    assert line["level"] == "warning"
    assert (line["method"], line["status"]) == ("POST", 202)
    assert line["path"] == "/api/v1/webhooks/tradingview/***"
    assert line["ms"] > 0
    statements = [line["statement"] for line in lines if line["event"] == "slow query"]
    assert any("signals" in statement and len(statement) <= 1000 for statement in statements)
    assert "hush-1234" not in output


async def test_quick_requests_are_access_log_and_the_probes_are_not(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = settings.model_copy(update={"slow_request_ms": 600_000})
    async with client_of(create_app(patient)) as client:
        logged(capsys)
        for path in ("/nowhere", "/api/v1/health"):
            await client.get(path)
    (line,) = logged(capsys, "request")
    assert (line["path"], line["status"], line["level"]) == ("/nowhere", 404, "info")


async def test_slow_statements_are_logged_without_their_parameters(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    database = Database(settings.model_copy(update={"slow_query_ms": 100}))
    async with database.transaction() as session:
        await session.execute(text("SELECT pg_sleep(0.11), CAST(:secret AS text)"), {"secret": "hush-1234"})
    await database.close()
    output = capsys.readouterr().out
    (line,) = [json.loads(line) for line in output.splitlines()]
    assert line["event"] == "slow query"
    assert line["statement"].startswith("SELECT pg_sleep(0.11), CAST(")
    assert line["ms"] >= 100
    assert line["failed"] is False
    assert "hush-1234" not in output


async def test_quick_statements_are_not_logged(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    patient = settings.model_copy(update={"slow_query_ms": 600_000})
    database, connection = Database(patient), DirectConnection(patient, 5)
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))
    await connection.fetch("SELECT 1")
    connection.drop()
    await database.close()
    assert logged(capsys) == []


async def test_slow_statements_that_fail_are_logged_too(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    limits = {"slow_query_ms": 100, "database_command_timeout": 0.2}
    database = Database(settings.model_copy(update=limits))
    with pytest.raises(UnavailableError):
        await sleep(database)
    await database.close()
    (line,) = logged(capsys, "slow query")
    assert (line["statement"], line["failed"]) == ("SELECT pg_sleep(60)", True)


async def sleep(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("SELECT pg_sleep(60)"))


async def test_slow_statements_without_sqlalchemy_are_logged(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info")
    connection = DirectConnection(settings.model_copy(update={"slow_query_ms": 100}), 5)
    await connection.fetch("SELECT pg_sleep(0.11), $1::text", "hush-1234")
    connection.drop()
    (line,) = logged(capsys)
    assert (line["event"], line["statement"]) == ("slow query", "SELECT pg_sleep(0.11), $1::text")
