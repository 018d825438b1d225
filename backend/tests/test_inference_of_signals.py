"""A strategy's model and its signals: history, what is stored, and vetoes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from tests.conftest import Account
from tests.tiny_lstm import NAME, make_model
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.events.models import StoredEvent
from tradingbot.inference.models import Prediction, PredictionStatus
from tradingbot.inference.registry import ModelRegistry, activate
from tradingbot.inference.service import assess, veto
from tradingbot.orders.models import Side
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import ModelMode, Strategy


@dataclass
class Desk:
    """One strategy, its alerts, and its models."""

    client: httpx.AsyncClient
    account: Account
    database: Database
    models_dir: Path
    expected: dict[str, Any]

    def __post_init__(self) -> None:
        self.registry = ModelRegistry(self.models_dir)
        self._sent = 0

    async def send(self, **alert: Any) -> None:
        """Sends an alert of BTCUSDT."""
        self._sent += 1
        body = {"symbol": "BTCUSDT", "action": "buy", "id": self._sent} | alert
        assert (await self.client.post(self.account.webhook, json=body)).status_code == 202

    async def assess_last(self, mode: ModelMode = ModelMode.ANNOTATE) -> tuple[Strategy, Prediction | None]:
        """Assesses the latest signal."""
        async with self.database.transaction() as session:
            strategy = (await session.execute(select(Strategy))).scalar_one()
            strategy.model_mode, strategy.model_name = mode, NAME
            newest = select(Signal).order_by(Signal.received_at.desc(), Signal.id.desc()).limit(1)
            signal = (await session.execute(newest)).scalar_one()
            return strategy, await assess(session, self.registry, strategy, signal)

    async def events(self) -> list[StoredEvent]:
        """All events."""
        async with self.database.transaction() as session:
            return list((await session.execute(select(StoredEvent))).scalars())


@pytest.fixture
async def desk(
    client: httpx.AsyncClient, account: Account, settings: Settings, tmp_path: Path
) -> AsyncIterator[Desk]:
    expected = await asyncio.to_thread(make_model, tmp_path / "models", "1")
    activate(tmp_path / "models", NAME, "1")
    database = Database(settings)
    yield Desk(client, account, database, tmp_path / "models", expected)
    await database.close()


async def test_window_of_alerts_is_the_input(desk: Desk) -> None:
    for row in desk.expected["rows"]:
        await desk.send(symbol="ETHUSDT", price=1)
        await desk.send(price=row[0])
    _strategy, prediction = await desk.assess_last()
    assert prediction is not None
    assert (prediction.status, prediction.model_version) == (PredictionStatus.OK, "1")
    assert prediction.probabilities is not None
    given = [float(prediction.probabilities[label]) for label in ("sell", "hold", "buy")]
    assert given == pytest.approx(desk.expected["output"], abs=1e-5)
    assert [event.type for event in await desk.events()] == ["prediction"]


async def test_named_features_come_before_fields(desk: Desk) -> None:
    for row in desk.expected["rows"]:
        await desk.send(price=1, features={"price": str(row[0])})
    _strategy, prediction = await desk.assess_last()
    assert prediction is not None
    assert prediction.probabilities is not None
    given = [float(prediction.probabilities[label]) for label in ("sell", "hold", "buy")]
    assert given == pytest.approx(desk.expected["output"], abs=1e-5)


async def test_too_few_alerts(desk: Desk) -> None:
    await desk.send(price=1)
    _strategy, prediction = await desk.assess_last()
    assert prediction is not None
    assert (prediction.status, prediction.outcome) == (PredictionStatus.FAILED, None)
    assert "needs 3 alerts" in str(prediction.reason)


@pytest.mark.parametrize("features", [{}, {"features": {"price": True}}, {"features": {"price": "much"}}])
async def test_alert_without_the_feature(desk: Desk, features: dict[str, Any]) -> None:
    for _ in range(3):
        await desk.send(**features)
    _strategy, prediction = await desk.assess_last()
    assert prediction is not None
    assert prediction.status == PredictionStatus.FAILED
    assert "feature price" in str(prediction.reason)


async def test_signal_is_assessed_once(desk: Desk) -> None:
    for row in desk.expected["rows"]:
        await desk.send(price=row[0])
    _strategy, first = await desk.assess_last()
    await asyncio.to_thread(make_model, desk.models_dir, "2", 8)
    activate(desk.models_dir, NAME, "2")
    _strategy, second = await desk.assess_last()
    assert first is not None
    assert second is not None
    assert (second.id, second.model_version) == (first.id, "1")
    assert len(await desk.events()) == 1


async def test_veto_only_where_the_strategy_wants_it(desk: Desk) -> None:
    for row in desk.expected["rows"]:
        await desk.send(price=row[0])
    strategy, prediction = await desk.assess_last(ModelMode.VETO)
    assert prediction is not None
    agreeing = {"buy": Side.BUY, "sell": Side.SELL}.get(str(prediction.outcome))
    for side in Side:
        reason = veto(strategy, side, prediction)
        assert (reason is None) == (side == agreeing)
    strategy.model_mode = ModelMode.ANNOTATE
    assert veto(strategy, Side.BUY, prediction) is None
    assert veto(strategy, Side.SELL, prediction) is None


async def test_no_answer_is_no_agreement(desk: Desk) -> None:
    (desk.models_dir / NAME / "active").unlink()
    await desk.send(price=1)
    strategy, prediction = await desk.assess_last(ModelMode.VETO)
    assert prediction is not None
    assert prediction.status == PredictionStatus.DISABLED
    assert "disabled" in str(veto(strategy, Side.BUY, prediction))


async def test_strategy_without_a_model(desk: Desk) -> None:
    await desk.send(price=1)
    strategy, prediction = await desk.assess_last(ModelMode.OFF)
    assert prediction is None
    assert veto(strategy, Side.BUY, prediction) is None
    assert await desk.events() == []
