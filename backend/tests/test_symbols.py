"""Which market a symbol means: in Python, in PostgreSQL, and for positions of versions that did not ask."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import MakeDatabase
from tradingbot.core.symbols import market_of
from tradingbot.migrations.runner import MigrationSettings, migrate

D = Decimal
SPELLINGS = (
    "BTCUSDT", "btcusdt", " BTCUSDT ", "BINANCE:BTCUSDT", "binance:btcusdt", "BTC/USDT", "BTC-USDT",
    "BTC_USDT", "Btc Usdt", "BTCUSDT.P", "BINANCE:BTCUSDT.P", "BTC/USDT:USDT", "bybit:BTC-USDT.p",
)  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_market_has_many_spellings(spelling: str) -> None:
    assert market_of(spelling) == "BTCUSDT"


@pytest.mark.parametrize(
    ("symbol", "market"),
    [
        ("BTC/USDT:USDT-260327", "BTCUSDT260327"),
        ("BTCUSDT_260327", "BTCUSDT260327"),
        ("BTCUSDC", "BTCUSDC"),
        ("1000SHIBUSDT", "1000SHIBUSDT"),
        ("NASDAQ:AAPL", "AAPL"),
        ("BRK.B", "BRK.B"),
        ("ES1!", "ES1!"),
        # Other letters are left as they are: no language's rules, which may differ from PostgreSQL's.
        ("ßTC/usdt", "ßTCUSDT"),
        ("币安人生USDT", "币安人生USDT"),
        # Never nothing: a row of the queue without a market holds up all others of its strategy.
        ("BINANCE:", "BINANCE:"),
        ("-", "-"),
    ],
)
def test_what_else_a_symbol_may_be(symbol: str, market: str) -> None:
    assert market_of(symbol) == market


@pytest.fixture(scope="module")
def url(make_database: MakeDatabase) -> str:
    database = make_database()
    asyncio.run(migrate(MigrationSettings.model_validate({"database_url": database})))
    return database


@settings(max_examples=50)
@given(st.lists(st.text(st.sampled_from("abYZé./:-_ P\n\tßİ1"), min_size=1, max_size=12), min_size=20))
@example([*SPELLINGS, "a.P\n", "a.p.P", ":-:", "A/B:C.P", "..P", "/:a-b"])
def test_postgresql_says_the_same(url: str, symbols: list[str]) -> None:
    async def ask() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT market_of(symbol) FROM unnest($1::text[]) WITH ORDINALITY AS given (symbol, place)"
                " ORDER BY place",
                symbols,
            )
        finally:
            await connection.close()
        return [row[0] for row in rows]

    assert asyncio.run(ask()) == [market_of(symbol) for symbol in symbols]


class Before:
    """A database at the revision before markets, with one strategy."""

    def __init__(self, url: str, connection: "asyncpg.Connection[Any]") -> None:
        self.url, self._connection = url, connection

    async def position(self, symbol: str, quantity: str, average: str = "0", **money: Decimal) -> None:
        await self._connection.execute(
            "INSERT INTO positions (user_id, strategy_id, symbol, quantity, average_price, realised_pnl,"
            " fees, last_price) SELECT user_id, id, $1, $2, $3, $4, $5, $6 FROM strategies",
            symbol,
            D(quantity),
            D(average),
            *(money.get(name, D(0)) for name in ("realised_pnl", "fees", "last_price")),
        )

    async def execute(self, statement: str, *values: object) -> None:
        await self._connection.execute(statement, *values)

    async def rows(self, query: str) -> list[Any]:
        return [tuple(row) for row in await self._connection.fetch(query)]

    async def migrated(self) -> list[Any]:
        await migrate(MigrationSettings.model_validate({"database_url": self.url}))
        return await self.rows(
            "SELECT symbol, quantity, average_price, realised_pnl, fees, last_price FROM positions"
            " ORDER BY market_of(symbol)"
        )


@pytest.fixture
async def before(make_database: MakeDatabase) -> AsyncIterator[Before]:
    url = await asyncio.to_thread(make_database)
    await migrate(MigrationSettings.model_validate({"database_url": url}), "0006")
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO users (email) VALUES ('a@example.org')")
    await connection.execute(
        "INSERT INTO strategies (user_id, name, webhook_token_hash) SELECT id, 's', 't' FROM users"
    )
    yield Before(url, connection)
    await connection.close()


async def test_positions_of_one_market_become_one(before: Before) -> None:
    await before.position("BTCUSDT", "2", "100", realised_pnl=D(5), fees=D(1), last_price=D(90))
    await before.position("btcusdt", "1", "130", realised_pnl=D(-2), fees=D("0.5"))
    await before.position("BINANCE:BTCUSDT", "0", realised_pnl=D(7), fees=D(2))
    await before.position("ETHUSDT", "3", "10", last_price=D(11))
    (btc, eth) = await before.migrated()
    assert btc[1:] == (D(3), D(110), D(10), D("3.5"), D(90))
    assert eth == ("ETHUSDT", D(3), D(10), D(0), D(0), D(11))


@pytest.mark.parametrize(
    ("long", "short", "quantity", "average", "realised"),
    [
        # Sold at 120 what was bought at 100: as if both had been one position.
        ("2", "-1", "1", "100", "20"),
        ("1", "-3", "-2", "120", "20"),
        ("2", "-2", "0", "0", "40"),
    ],
)
async def test_long_and_short_of_one_market_are_what_the_account_holds(
    before: Before, long: str, short: str, quantity: str, average: str, realised: str
) -> None:
    await before.position("BTCUSDT.P", long, "100")
    await before.position("BTCUSDT", short, "120")
    ((_, *amounts),) = await before.migrated()
    assert amounts[:3] == [D(quantity), D(average), D(realised)]


async def test_the_spelling_that_holds_something_stays(before: Before) -> None:
    await before.position("BINANCE:BTCUSDT", "1", "100")
    await before.position("BTCUSDT", "0")
    ((symbol, *_),) = await before.migrated()
    # A version before this one, which looks for it by this spelling, finds it.
    assert symbol == "BINANCE:BTCUSDT"


async def test_what_the_version_before_queues_keeps_its_place_in_the_market(before: Before) -> None:
    queue = (
        "INSERT INTO signals (user_id, strategy_id, dedup_key, symbol, action, received_at, payload)"
        " SELECT user_id, id, $1, $2, 'buy', now(), '{}' FROM strategies"
    )
    insert = (
        "INSERT INTO outbox (task, strategy_id, symbol, signal_id)"
        " SELECT 'signal', strategy_id, symbol, id FROM signals WHERE dedup_key = $1"
    )
    await before.execute(queue, "one", "BINANCE:BTCUSDT")
    await before.execute(insert, "one")
    await before.migrated()
    await before.execute(queue, "two", "btcusdt")
    await before.execute(insert, "two")
    assert await before.rows("SELECT symbol FROM outbox ORDER BY id") == [("BTCUSDT",), ("BTCUSDT",)]


async def test_the_version_before_makes_no_second_position_of_a_market(before: Before) -> None:
    await before.position("BTCUSDT", "1", "100")
    await before.migrated()
    insert = (
        "INSERT INTO positions (user_id, strategy_id, symbol) SELECT user_id, id, $1 FROM strategies"
        " ON CONFLICT (strategy_id, symbol) DO NOTHING"
    )
    await before.execute(insert, "BTCUSDT")
    with pytest.raises(asyncpg.UniqueViolationError):
        await before.execute(insert, "BINANCE:BTCUSDT")


async def test_a_condition_on_the_market_costs_little(before: Before) -> None:
    """It is a part of the query (a function that is called for each row is not), and found by the index."""
    await before.migrated()
    await before.execute("SET enable_seqscan = off")
    plan = str(
        await before.rows(
            "EXPLAIN SELECT FROM positions"
            " WHERE strategy_id = gen_random_uuid() AND market_of(symbol) = 'BTCUSDT'"
        )
    )
    assert "uq_positions_strategy_id_market" in plan
    plan = str(await before.rows("EXPLAIN VERBOSE SELECT FROM signals WHERE market_of(symbol) = 'BTCUSDT'"))
    assert "regexp_replace" in plan
    assert "market_of" not in plan
