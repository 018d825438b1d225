"""An exchange that hangs holds up its own accounts, and no others."""

from decimal import Decimal

import pytest

from tests.desk import Desk, until, working_here
from tests.exits.steps import queue, spot
from tests.stub_exchange import Fault, StubExchange
from tests.stub_exchange.faults import FOREVER
from tradingbot.core.settings import Settings
from tradingbot.signals.models import SignalStatus

D = Decimal


@pytest.fixture
def settings(stub: StubExchange, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("EXCHANGE_TIMEOUT", "1")
    return Settings()


async def test_paper_trades_while_another_exchange_hangs(
    desk: Desk, stub: StubExchange, settings: Settings
) -> None:
    stub.faults.add(Fault("delay", method="*", path="", times=FOREVER, seconds=60))
    for _ in range(16):
        await queue(desk, await spot(desk), "buy", "0.01")
    paper = await desk.strategy()
    signals = [await queue(desk, paper, "buy", "0.01") for _ in range(3)]

    async def traded() -> bool:
        return {(await desk.signal(signal)).status for signal in signals} == {SignalStatus.ORDERED}

    async with working_here(settings):
        await until(traded, 20)
        # The loops hung once each; then one asked at a time. Without that each of the 16 would hang first.
        assert len(stub.received) <= 8
        stub.faults.clear()
        await desk.until_idle(20)
    assert len(stub.account.orders) == 16
