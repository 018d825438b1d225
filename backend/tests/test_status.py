"""`tradingbot status`, and the version that an image says it is."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.conftest import Account, MakeDatabase, execute
from tests.forked import run
from tests.network import free_port
from tradingbot import __version__
from tradingbot.migrations.head import FIRST, head_revision

HEAD = head_revision()


def status(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("status", *arguments, **variables)


def told(**variables: str) -> Any:
    done = status("--json", **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_version_schema_and_queue(
    account: Account, client: httpx.AsyncClient, database_url: str
) -> None:
    schema = {"current": HEAD, "head": HEAD, "oldest": FIRST, "ok": True}
    assert await asyncio.to_thread(told) == {
        "version": __version__,
        "schema": schema,
        "queue": {"depth": 0, "oldest_seconds": 0.0},
    }
    for action in ("buy", "close"):
        await client.post(account.webhook, json={"symbol": "BTCUSDT", "action": action})
    # The first has waited for a minute, and is tried again in an hour.
    aged = (
        "UPDATE outbox SET created_at = now() - interval '1 minute', available_at = now() + interval '1 hour'"
        " WHERE id = (SELECT min(id) FROM outbox)"
    )
    await asyncio.to_thread(execute, database_url, aged)
    queue = (await asyncio.to_thread(told))["queue"]
    assert queue["depth"] == 2
    assert 60 <= queue["oldest_seconds"] < 120
    lines = (await asyncio.to_thread(status)).stdout.splitlines()
    assert lines[:2] == [f"version  {__version__}", f"schema   at {HEAD}"]
    assert lines[2].startswith("queue    2 waiting, the oldest signal for 6")


@pytest.mark.parametrize(
    ("statements", "schema", "line"),
    [
        (
            [],
            {"current": None, "oldest": None, "ok": False},
            f"schema   at nothing, {HEAD} is needed: run `tradingbot migrate`",
        ),
        (
            [
                "CREATE TABLE alembic_version AS SELECT '9999' AS version_num",
                "CREATE TABLE schema_compatibility AS SELECT '9998' AS oldest",
            ],
            {"current": "9999", "oldest": "9998", "ok": False},
            f"schema   at 9999, which has moved past this version, whose head is {HEAD}:"
            " a version whose head is 9998 or later is needed",
        ),
    ],
    ids=["nothing", "moved past"],
)
def test_a_schema_that_is_not_fit_is_an_answer(
    make_database: MakeDatabase, statements: list[str], schema: dict[str, Any], line: str
) -> None:
    url = make_database()
    execute(url, *statements)
    answer = told(DATABASE_URL=url)
    assert answer["schema"] == {**schema, "head": HEAD}
    assert answer["queue"] == {"depth": None, "oldest_seconds": None}
    assert status(DATABASE_URL=url).stdout.splitlines()[1:] == [line, "queue    none yet"]


def test_without_a_database() -> None:
    port = free_port()
    url = f"postgresql://tradingbot:Xa8sdKq2@127.0.0.1:{port}/tradingbot"
    done = status("--json", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"PostgreSQL at 127.0.0.1:{port} does not answer" in done.stderr
    assert "Xa8sdKq2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_settings() -> None:
    done = status(DATABASE_URL="")
    assert done.returncode == 2
    assert "DATABASE_URL is missing" in done.stderr


def test_it_stays_quick() -> None:
    """Of what takes long to import it has nothing."""
    code = (
        "import sys; from tradingbot.cli.main import main\n"
        "main(['status'])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"DATABASE_URL": f"postgresql://t:Xa8sdKq2@127.0.0.1:{free_port()}/t"},
        capture_output=True,
        text=True,
        check=True,
    )
    for module in ("sqlalchemy", "redis", "fastapi", "alembic", "structlog", "prometheus_client", "ccxt"):
        assert f"'{module}'" not in done.stdout


@pytest.mark.parametrize(("variable", "version"), [("7.8.9", "7.8.9"), ("", __version__)])
def test_an_image_is_the_version_that_it_was_built_as(variable: str, version: str) -> None:
    """`TRADINGBOT_VERSION` of the image, which is empty if it was built without a version."""
    code = (
        "from tradingbot.health.endpoints import _HEALTHY; from tradingbot import __version__\n"
        "from tradingbot.core.metrics import exposition, set_build_info; set_build_info()\n"
        "print(__version__, _HEALTHY.decode(), exposition().decode())"
    )
    environment = os.environ | {"TRADINGBOT_VERSION": variable}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f'{version} {{"status":"healthy","version":"{version}"}} ')
    assert 'tradingbot_build_info{python="' in done.stdout
    assert f'version="{version}"}} 1.0' in done.stdout
    command = subprocess.run(["tradingbot", "version"], env=environment, capture_output=True, text=True)
    assert command.stdout == f"tradingbot {version}\n"
