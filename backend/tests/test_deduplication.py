"""One alert, one signal, one row in the outbox: whoever stores it, and however often it comes at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.conftest import Account
from tradingbot.core.direct import DirectConnection
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import hash_token
from tradingbot.webhooks import repository
from tradingbot.webhooks.deduplication import CONTENT, dedup_key
from tradingbot.webhooks.parsing import parse_alert
from tradingbot.webhooks.repository import NewAlert, Verdict

WINDOW = timedelta(seconds=60)
MOMENT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Store:
    """Gives alerts to the statement, on a connection of its own, at times that the test chooses."""

    def __init__(self, settings: Settings, account: Account) -> None:
        self.connection = DirectConnection(settings, 10, **repository.SERVER_SETTINGS)
        self._token_hash = hash_token(account.token, settings.secret_key.get_secret_value())

    def alert(self, key: str, received_at: datetime = MOMENT, symbol: str = "A") -> NewAlert:
        """An alert with this key."""
        rest = (None, None, None, None, None, None, None, "{}", False, False)
        return NewAlert(self._token_hash, None, key, received_at, symbol, "buy", *rest)

    async def once(self, *alerts: NewAlert) -> list[Verdict]:
        """Runs the statement once."""
        verdicts = await repository.store(self.connection, alerts, WINDOW, 300)
        assert None not in verdicts
        return [verdict for verdict in verdicts if verdict is not None]

    async def until_final(self, alert: NewAlert) -> Verdict:
        """Runs it as often as it asks for."""
        for _ in range(5):
            (verdict,) = await self.once(alert)
            if verdict.is_final:
                return verdict
        raise AssertionError("no final verdict")


@asynccontextmanager
async def stores(settings: Settings, account: Account, count: int) -> AsyncIterator[list[Store]]:
    all_of_them = [Store(settings, account) for _ in range(count)]
    try:
        yield all_of_them
    finally:
        for store in all_of_them:
            store.connection.drop()


async def counts(url: str) -> tuple[int, int]:
    """Signals, and rows in the outbox that belong to different ones."""
    connection = await asyncpg.connect(url)
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM signals), count(signal_id), count(DISTINCT signal_id) FROM outbox"
    )
    await connection.close()
    assert row[1] == row[2]
    return row[0], row[1]


@pytest.mark.parametrize(
    ("later", "is_duplicate"), [(0.1, True), (-0.1, True), (59.9, True), (60.0, False), (600.0, False)]
)
async def test_content_is_the_same_alert_within_the_window(
    settings: Settings, account: Account, database_url: str, later: float, is_duplicate: bool
) -> None:
    async with stores(settings, account, 1) as (store,):
        key = f"{CONTENT}same"
        first = await store.until_final(store.alert(key))
        second = await store.until_final(store.alert(key, MOMENT + timedelta(seconds=later)))
        assert first.new_id is not None
        if is_duplicate:
            assert second.earlier_id == first.new_id
            assert await counts(database_url) == (1, 1)
        else:
            assert second.new_id not in (None, first.new_id)
            assert await counts(database_url) == (2, 2)
            third = await store.until_final(store.alert(key, MOMENT + timedelta(seconds=later + 1)))
            assert third.earlier_id == second.new_id


@pytest.mark.parametrize("key", ["id:x", f"{CONTENT}x"])
@pytest.mark.parametrize("earlier", [False, True], ids=["never-before", "long-before"])
async def test_many_connections_at_once_store_one(
    settings: Settings, account: Account, database_url: str, key: str, earlier: bool
) -> None:
    async with stores(settings, account, 8) as many:
        if earlier:
            await many[0].until_final(many[0].alert(key, MOMENT - timedelta(days=1)))
        verdicts = await asyncio.gather(*(store.until_final(store.alert(key)) for store in many))
        stored = [verdict.new_id for verdict in verdicts if verdict.new_id]
        expected = 0 if earlier and not key.startswith(CONTENT) else 1
        assert len(stored) == expected
        assert await counts(database_url) == (earlier + expected,) * 2
        if stored:
            assert {verdict.earlier_id for verdict in verdicts if not verdict.new_id} == {stored[0]}


async def test_an_alert_waits_for_an_equal_one_that_is_about_to_be_committed(
    settings: Settings, account: Account, database_url: str
) -> None:
    async with stores(settings, account, 1) as (store,):
        await store.until_final(store.alert(f"{CONTENT}x", MOMENT - timedelta(days=1)))
        other = await asyncpg.connect(database_url)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE signals SET dedup_key = 'body:x:earlier'")
        await other.execute(
            "INSERT INTO signals (user_id, strategy_id, dedup_key, symbol, action, received_at, payload)"
            " SELECT user_id, strategy_id, 'body:x', symbol, action, $1, payload FROM signals",
            MOMENT,
        )
        waiting = asyncio.create_task(store.until_final(store.alert(f"{CONTENT}x", MOMENT + WINDOW / 2)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await transaction.commit()
        stored = await other.fetchval("SELECT id FROM signals WHERE dedup_key = 'body:x'")
        assert (await asyncio.wait_for(waiting, 60)).earlier_id == stored
        await other.close()


async def test_equal_ones_in_one_statement_are_stored_once(
    settings: Settings, account: Account, database_url: str
) -> None:
    async with stores(settings, account, 1) as (store,):
        first, second, other = await store.once(
            store.alert("id:same"), store.alert("id:same"), store.alert("id:other")
        )
        assert first.new_id
        assert other.new_id
        assert not second.is_final
        assert (await store.until_final(store.alert("id:same"))).earlier_id == first.new_id
        assert await counts(database_url) == (2, 2)


async def test_statements_with_the_same_alerts_in_other_orders_do_not_wait_for_each_other(
    settings: Settings, account: Account, database_url: str
) -> None:
    async with stores(settings, account, 4) as many:
        for attempt in range(20):
            keys = [f"id:{attempt}-{number}" for number in range(20)]
            orders = [keys, keys[::-1], keys[10:] + keys[:10], keys[::2] + keys[1::2]]
            await asyncio.gather(
                *(
                    store.once(*(store.alert(key) for key in order))
                    for store, order in zip(many, orders, strict=True)
                )
            )
        assert await counts(database_url) == (400, 400)


async def test_the_outbox_keeps_the_order_in_which_alerts_came(
    settings: Settings, account: Account, database_url: str
) -> None:
    async with stores(settings, account, 1) as (store,):
        symbols = [f"S{number}" for number in (5, 3, 9, 1, 7, 2, 8)]
        await store.once(*(store.alert(f"id:{symbol}", symbol=symbol) for symbol in symbols))
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT signals.symbol FROM outbox JOIN signals ON signals.id = outbox.signal_id ORDER BY outbox.id"
    )
    await connection.close()
    assert [row["symbol"] for row in rows] == symbols


def test_key_of_an_alert() -> None:
    def key(body: bytes) -> str:
        parsed = parse_alert(body)
        return dedup_key(parsed.alert, parsed.payload)

    numbered = key(b'{"symbol":"A","action":"buy","id":1}')
    assert numbered == key(b'{"symbol":"B","action":"sell","id":"1"}')
    order = key(b'{"symbol":"A","action":"buy","order_id":"L","timenow":"2026-01-05T12:00:00Z"}')
    assert order == key(
        b'{"ticker":"A","action":"BUY","order_id":"L","timenow":"2026-01-05T13:00:00+01:00","price":1}'
    )
    assert order != key(b'{"symbol":"A","action":"buy","order_id":"L","timenow":"2026-01-05T12:00:01Z"}')
    content = key(b'{"symbol":"A","action":"buy","secret":"x"}')
    assert content == key(b' {"action":"buy","symbol":"A"}')
    assert content.startswith(CONTENT)
    assert content != key(b'{"symbol":"A","action":"buy","order_id":"L"}')
