"""kill -9 at every step between claim and fill: no order lost, none doubled, by the exchange's own count."""

import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.desk import Desk, open_desk, running_worker
from tests.stub_exchange import StubExchange
from tradingbot.core.settings import Settings
from tradingbot.orders.models import OrderState
from tradingbot.signals.models import SignalStatus

STEPS = [
    "claimed",
    "taken",
    "priced",
    "deciding",
    "decided",
    "submitting",
    "submitted",
    "placed",
    "recording",
    "recorded",
    "finishing",
    "finished",
]


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as desk:
        yield desk


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with StubExchange() as stub:
        monkeypatch.setenv("EXCHANGE_BASE_URL", stub.url)
        strategy = await desk.strategy(await desk.account())
        signal_id = await desk.queue(strategy)
        async with running_worker(tmp_path, step, wait=False) as worker:
            assert await worker.ended() == -signal.SIGKILL
        async with running_worker(tmp_path):
            await desk.until_idle()
        await assert_traded_once(desk, stub)
        assert await desk.held(strategy) == Decimal("0.01")
        assert (await desk.signal(signal_id)).status == SignalStatus.ORDERED
        signals = await desk.events("signal")
        assert [event["id"] for event in signals] == [str(signal_id)]


async def assert_traded_once(desk: Desk, stub: StubExchange) -> None:
    order = await desk.order()
    assert order.state == OrderState.FILLED
    assert order.filled_quantity == Decimal("0.01")
    assert stub.account.counts() == {order.client_order_id: 1}
    assert len(await desk.fills()) == 1
