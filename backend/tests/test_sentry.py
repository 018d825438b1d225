"""Errors reach Sentry, here a server of ours that takes its envelopes, without the secrets in them."""

import asyncio
import gzip
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog
from pydantic import SecretStr

from tests.conftest import SECRET_KEY, Account
from tests.forked import run
from tests.receivers import Answer, HttpReceiver, http_receiver
from tests.test_serve import serving
from tradingbot.core.logging import configure_logging, working_on
from tradingbot.core.sentry import reporting_errors
from tradingbot.core.settings import Settings

TOKEN = "tbw_Zk3vN8rLq5WcY1pK"

log = structlog.stdlib.get_logger("tradingbot.test")


def dsn_of(sentry: HttpReceiver) -> str:
    return f"http://0a1b2c3d4e5f@127.0.0.1:{sentry.port}/1"


def reports(sentry: HttpReceiver) -> list[dict[str, Any]]:
    """The events that came in: items of envelopes (https://develop.sentry.dev/sdk/data-model/envelopes/)."""
    envelopes = [gzip.decompress(request.body).decode() for request in sentry.requests]
    lines = [json.loads(line) for envelope in envelopes for line in envelope.splitlines()]
    return [line for line in lines if "level" in line]


@asynccontextmanager
async def without_symbols(owner_url: str) -> AsyncIterator[None]:
    """Breaks what is stored, so that reading signals fails in a way that nobody has thought of."""
    connection = await asyncpg.connect(owner_url)
    await connection.execute("ALTER TABLE signals ALTER symbol DROP NOT NULL")
    await connection.execute("UPDATE signals SET symbol = NULL")
    try:
        yield
    finally:
        await connection.execute("UPDATE signals SET symbol = 'BTCUSDT'")
        await connection.execute("ALTER TABLE signals ALTER symbol SET NOT NULL")
        await connection.close()


async def test_what_is_logged_as_an_error_is_reported_without_secrets(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    signal_id = uuid4()

    def work(reported: Settings) -> None:
        configure_logging("info")
        with reporting_errors(reported, "worker"), working_on(signal_id=signal_id):
            log.warning("only a warning")
            log.error("refused", address=f"https://mail.test/api/v1/webhooks/tradingview/{TOKEN}")
            try:
                raise RuntimeError(f"no answer with password={SECRET_KEY}")
            except RuntimeError:
                log.exception("work failed")
        log.error("after the end")

    async with http_receiver() as sentry:
        await asyncio.to_thread(work, settings.model_copy(update={"sentry_dsn": SecretStr(dsn_of(sentry))}))
        message, exception = reports(sentry)
    assert message["message"] == "refused"
    (raised,) = exception["exception"]["values"]
    assert (raised["type"], raised["value"]) == ("RuntimeError", "no answer with password=***")
    for report in (message, exception):
        assert report["tags"] == {
            "process": "worker",
            "signal_id": str(signal_id),
            "logger": "tradingbot.test",
        }
        assert report["environment"] == "test"
        assert not report["breadcrumbs"]["values"]
    sent = json.dumps([message, exception])
    assert SECRET_KEY not in sent
    assert TOKEN not in sent
    assert "after the end" in capsys.readouterr().out


async def test_a_failed_request_is_reported_with_the_id_that_its_client_got(
    tmp_path: Path, account: Account, owner_url: str
) -> None:
    async with http_receiver() as sentry:
        # Sentry is slow, and nobody waits for it.
        sentry.behave = lambda _number: Answer(delay=5.0)
        async with serving(tmp_path, 2, SENTRY_DSN=dsn_of(sentry)) as (port, _log):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                stored = await client.post(account.webhook, json={"symbol": "BTCUSDT", "action": "buy"})
                assert stored.status_code == 202
                async with without_symbols(owner_url):
                    started = time.monotonic()
                    answer = await client.get("/api/v1/signals", headers=account.headers)
                    assert time.monotonic() - started < 4.5
            await sentry.wait_for(1)
    (report,) = reports(sentry)
    assert answer.status_code == 500
    assert report["tags"]["request_id"] == answer.json()["request_id"]
    assert report["tags"]["process"] == "web"
    assert account.api_key not in json.dumps(report)
    assert "request" not in report


async def test_the_worker_reports_why_it_does_not_start(environment: dict[str, str]) -> None:
    async with http_receiver() as sentry, http_receiver() as other:
        variables = {"SENTRY_DSN": dsn_of(sentry), "WORKER_METRICS_PORT": str(other.port)}
        done = await asyncio.to_thread(run, "worker", **variables)
    assert done.returncode == 1
    (report,) = reports(sentry)
    assert report["message"] == "the metrics port is taken"
    assert report["tags"]["process"] == "worker"


async def test_sentry_away_holds_up_nothing_but_the_end(settings: Settings) -> None:
    async with http_receiver() as sentry:
        dsn = SecretStr(dsn_of(sentry))
    started = time.monotonic()
    with reporting_errors(settings.model_copy(update={"sentry_dsn": dsn}), "web"):
        log.error("nobody hears")
        assert time.monotonic() - started < 1
    assert time.monotonic() - started < 5


def test_it_is_off_by_default(settings: Settings) -> None:
    code = (
        "import sys\n"
        "from tradingbot.core.sentry import reporting_errors\n"
        "from tradingbot.core.settings import Settings\n"
        "with reporting_errors(Settings(), 'web'):\n"
        "    print('sentry_sdk' in sys.modules)\n"
    )
    done = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
