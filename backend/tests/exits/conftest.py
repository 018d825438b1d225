"""A worker at the stub exchange: what is right here stays right however the worker is built."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.desk import Desk, open_desk, working_here
from tests.exits.steps import Say, queue
from tests.stub_exchange import StubExchange
from tradingbot.core.settings import Settings
from tradingbot.notifications.notifier import Kind, Silence
from tradingbot.signals.models import Signal
from tradingbot.worker import main as worker_main


@pytest.fixture
async def stub(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StubExchange]:
    async with StubExchange() as stub:
        variables = {
            "EXCHANGE_BASE_URL": stub.url,
            "WORKER_HEALTH_FILE": str(tmp_path / "alive"),
            "WORKER_RETRY_DELAY": "0.05",
            "WORKER_RETRY_LONGEST": "0.2",
            "WORKER_POLL_INTERVAL": "0.1",
            "RECONCILE_INTERVAL": "0.5",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield stub


@pytest.fixture
def settings(stub: StubExchange) -> Settings:
    return Settings()


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as desk:
        yield desk


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Title and text of what people are told."""
    messages: list[tuple[str, str]] = []

    class Told(Silence):
        def notify(self, kind: Kind, title: str, text: str) -> None:
            messages.append((title, text))

    monkeypatch.setattr(worker_main, "make_notifier", lambda _settings: Told())
    return messages


@pytest.fixture
async def say(desk: Desk, settings: Settings, told: list[tuple[str, str]]) -> AsyncIterator[Say]:
    """Queues an alert, and gives what became of it when nothing is left to do."""
    async with working_here(settings):

        async def said(strategy: UUID, word: str, size: str | None = None, **columns: Any) -> Signal:
            signal_id = await queue(desk, strategy, word, size, **columns)
            await desk.until_idle(20)
            return await desk.signal(signal_id)

        yield said
