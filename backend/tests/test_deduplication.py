"""The window in which the same content is the same alert, at its edge."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import Account
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.webhooks import service
from tradingbot.webhooks.parsing import parse_alert

WINDOW = 60
EDGE = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


async def test_same_content_at_once_on_both_sides_of_a_minute_is_one_alert(
    settings: Settings, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([EDGE - timedelta(seconds=0.1), EDGE + timedelta(seconds=0.1)])
    monkeypatch.setattr(service, "utc_now", lambda: next(moments))
    database = Database(settings)
    key = settings.secret_key.get_secret_value()
    parsed = parse_alert(b'{"symbol":"A","action":"buy"}')

    async def receive() -> service.Outcome:
        async with database.transaction() as session:
            return await service.receive(session, account.token, parsed, key, WINDOW)

    async with database.transaction() as session:
        first = await service.receive(session, account.token, parsed, key, WINDOW)
        second = asyncio.create_task(receive())
        await asyncio.sleep(0.3)
        assert not second.done()
    assert first.receipt.status == "accepted"
    assert (await second).receipt.status == "duplicate"
    assert (await second).receipt.id == first.receipt.id
    await database.close()
