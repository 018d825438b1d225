"""Exchange accounts: what is stored of credentials, what is shown, and which are refused."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from tests.conftest import Account, client_of, make_account
from tests.network import free_port
from tests.signed_in import sign_in
from tests.stub_exchange import DEFAULT_KEY, DEFAULT_SECRET, Fault, StubExchange
from tests.test_webhooks import assert_problem
from tradingbot.app import create_app
from tradingbot.core.crypto import Envelopes
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.exchanges import repository, service
from tradingbot.exchanges.credentials import Credentials, credentials_of
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.exchanges.schemas import AccountIn
from tradingbot.exchanges.service import LiveForbiddenError, check_mode, default_account

URL = "/api/v1/exchange-accounts"
BINANCE = {"name": "binance", "exchange": "binance", "key": DEFAULT_KEY, "secret": DEFAULT_SECRET}
PASSPHRASE = "myPassphrase-7f3kQ"


@pytest.fixture
async def stub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubExchange]:
    async with StubExchange() as exchange:
        monkeypatch.setenv("EXCHANGE_BASE_URL", exchange.url)
        yield exchange


@pytest.fixture
def settings(stub: StubExchange, environment: dict[str, str]) -> Settings:
    """Settings that lead to the stub."""
    return Settings()


@pytest.fixture
async def headers(settings: Settings) -> dict[str, str]:
    return await sign_in(settings, "trader@mail.test")


async def make(client: httpx.AsyncClient, headers: dict[str, str], **given: Any) -> dict[str, Any]:
    answer = await client.post(URL, json=given, headers=headers)
    assert answer.status_code == 201, answer.text
    account: dict[str, Any] = answer.json()
    return account


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The application with settings of its own."""
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


async def rows(url: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT * FROM exchange_accounts ORDER BY created_at")
    await connection.close()
    return list(found)


async def run(url: str, statement: str, *values: Any) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *values)
    await connection.close()


async def test_a_paper_account(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    account = await make(client, headers, name="mine", fee_rate="0.0005", starting_equity=5000)
    assert account == {
        "id": account["id"],
        "created_at": account["created_at"],
        "name": "mine",
        "exchange": "paper",
        "market": "spot",
        "mode": "paper",
        "has_credentials": False,
        "key_hint": None,
        "fee_rate": "0.0005",
        "slippage_rate": "0",
        "starting_equity": "5000",
        "live_price": False,
        "is_default": False,
    }
    assert (await client.get(f"{URL}/{account['id']}", headers=headers)).json() == account
    assert (await client.get(URL, headers=headers)).json() == {"items": [account], "next_cursor": None}


async def test_credentials_are_sealed_and_shown_to_the_exchange_alone(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    stub: StubExchange,
    settings: Settings,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await client.post(URL, json=BINANCE | {"passphrase": PASSPHRASE}, headers=headers)
    account = answer.json()
    assert (account["mode"], account["has_credentials"]) == ("testnet", True)
    assert account["key_hint"] == DEFAULT_KEY[-4:]
    assert DEFAULT_KEY in {request.headers.get("X-MBX-APIKEY") for request in stub.received}
    listed = await client.get(URL, headers=headers)
    (row,) = await rows(database_url)
    told = "".join((answer.text, listed.text, str(dict(row)), capsys.readouterr().out, caplog.text))
    for secret in (DEFAULT_KEY, DEFAULT_SECRET, PASSPHRASE):
        assert secret not in told
    database = Database(settings)
    async with database.transaction() as session:
        stored = await service.get(session, row["user_id"], row["id"])
    await database.close()
    opened = credentials_of(stored, Envelopes.of(settings))
    assert opened == Credentials(DEFAULT_KEY, DEFAULT_SECRET, PASSPHRASE)
    assert DEFAULT_SECRET not in repr(opened)


INVALID = [
    {"name": " "},
    {"name": "a", "modus": "live"},
    {"name": "a", "mode": "testnet"},
    {"name": "a", "live_price": True},
    {"name": "a", "key": "x", "secret": "hush-0123456789"},
    {"name": "a", "exchange": "binance", "mode": "paper", "key": "x", "secret": "hush-0123456789"},
    {"name": "a", "exchange": "binance"},
    {"name": "a", "exchange": "binance", "key": "hush-0123456789"},
    BINANCE | {"secret": ""},
    BINANCE | {"secret": "hush-0123456789\x00"},
    BINANCE | {"secret": "hush-0123456789" * 300},
    BINANCE | {"key": "hush-0123456789-é"},
    BINANCE | {"fee_rate": "0.1"},
    BINANCE | {"market": "moon"},
    BINANCE | {"exchange": "../binance"},
    BINANCE | {"exchange": "nowhere"},
    BINANCE | {"market": "future"},
    {"name": "a", "fee_rate": "1"},
    {"name": "a", "fee_rate": "-0.1"},
    {"name": "a", "slippage_rate": "0.9999999999999999999"},
    {"name": "a", "starting_equity": 0},
    {"name": "a", "exchange": "nowhere", "mode": "paper", "live_price": True},
]


@pytest.mark.parametrize("given", INVALID)
async def test_what_is_not_valid_is_refused_without_repeating_it(
    client: httpx.AsyncClient, headers: dict[str, str], given: dict[str, Any], database_url: str
) -> None:
    answer = await client.post(URL, json=given, headers=headers)
    assert_problem(answer, 422)
    for secret in ("hush-0123456789", DEFAULT_KEY, DEFAULT_SECRET):
        assert secret not in answer.text
    assert await rows(database_url) == []


async def test_a_private_key_in_pem_keeps_its_lines(settings: Settings) -> None:
    given = AccountIn.model_validate(BINANCE | {"secret": "-----BEGIN\r\nabc\n-----END\n"})
    account = service.make(uuid4(), given, settings, Envelopes.of(settings))
    assert credentials_of(account, Envelopes.of(settings)).secret == "-----BEGIN\r\nabc\n-----END"


async def test_a_short_key_gives_no_hint(settings: Settings) -> None:
    given = AccountIn.model_validate(BINANCE | {"key": "123456789012345"})
    assert service.make(uuid4(), given, settings, Envelopes.of(settings)).key_hint is None


async def test_wrong_credentials_are_refused(
    client: httpx.AsyncClient, headers: dict[str, str], database_url: str
) -> None:
    wrong = "wrong-key-0123456789abcdefghij"
    answer = await client.post(URL, json=BINANCE | {"key": wrong}, headers=headers)
    assert_problem(answer, 422)
    assert wrong not in answer.text
    assert await rows(database_url) == []


async def test_an_exchange_that_is_away_is_503_and_nothing_is_stored(
    client: httpx.AsyncClient, headers: dict[str, str], stub: StubExchange, database_url: str
) -> None:
    stub.faults.add(Fault("answer", method="GET", path="/account", times=-1, status=503))
    answer = await client.post(URL, json=BINANCE, headers=headers)
    assert_problem(answer, 503)
    assert answer.headers["retry-after"]
    assert await rows(database_url) == []


async def test_an_exchange_that_nobody_answers_for(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("EXCHANGE_BASE_URL", f"http://127.0.0.1:{free_port()}")
    async with running(Settings()) as client:
        headers = await sign_in(Settings(), "trader@mail.test")
        assert_problem(await client.post(URL, json=BINANCE, headers=headers), 503)
    assert await rows(database_url) == []


async def test_a_key_that_may_withdraw_is_refused(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, stub: StubExchange, database_url: str
) -> None:
    monkeypatch.setenv("BINANCE_TESTNET", "false")
    stub.account.may_withdraw = True
    settings = Settings()
    headers = await sign_in(settings, "trader@mail.test")
    async with running(settings) as client:
        unsaid = await client.post(URL, json=BINANCE, headers=headers)
        assert_problem(unsaid, 422)
        assert "Say the mode" in unsaid.text
        answer = await client.post(URL, json=BINANCE | {"mode": "live"}, headers=headers)
        assert_problem(answer, 422)
        assert "may withdraw" in answer.text
        assert await rows(database_url) == []
        stub.account.may_withdraw = False
        account = await make(client, headers, **BINANCE, mode="live")
        # Nor may a key be changed for one that may.
        stub.account.may_withdraw = True
        change = {"key": DEFAULT_KEY, "secret": DEFAULT_SECRET}
        changed = await client.patch(f"{URL}/{account['id']}", json=change, headers=headers)
        assert_problem(changed, 422)


async def test_live_is_refused_under_binance_testnet(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    settings: Settings,
    database_url: str,
    stub: StubExchange,
) -> None:
    answer = await client.post(URL, json=BINANCE | {"mode": "live"}, headers=headers)
    assert_problem(answer, 422)
    assert "BINANCE_TESTNET" in answer.text
    assert stub.received == []
    # An account from before the setting was switched on.
    account = await make(client, headers, **BINANCE)
    await run(database_url, "UPDATE exchange_accounts SET mode = 'live'")
    change = {"key": DEFAULT_KEY, "secret": DEFAULT_SECRET}
    changed = await client.patch(f"{URL}/{account['id']}", json=change, headers=headers)
    assert_problem(changed, 422)
    assert "BINANCE_TESTNET" in changed.text


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("testnet", [True, False])
def test_check_mode(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, mode: Mode, testnet: bool
) -> None:
    monkeypatch.setenv("BINANCE_TESTNET", str(testnet).lower())
    account = ExchangeAccount(mode=mode)
    if testnet and mode == Mode.LIVE:
        with pytest.raises(LiveForbiddenError, match="BINANCE_TESTNET"):
            check_mode(account, Settings())
    else:
        check_mode(account, Settings())


async def test_without_ccxt_the_answer_says_how_to_get_it(
    client: httpx.AsyncClient, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What import sees of a package that is not there.
    monkeypatch.setitem(sys.modules, "ccxt", None)
    answer = await client.post(URL, json=BINANCE, headers=headers)
    assert_problem(answer, 422)
    assert "extra `exchanges`" in answer.text
    await make(client, headers, name="paper works")


async def test_a_patch_changes_what_it_names(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    account = await make(client, headers, name="mine")
    change = {"name": "ours", "slippage_rate": "0.01"}
    changed = (await client.patch(f"{URL}/{account['id']}", json=change, headers=headers)).json()
    assert changed == account | change
    refused: list[dict[str, Any]] = [
        {"name": None},
        {"fee_rate": None},
        {"mode": "live"},
        {"exchange": "binance"},
        {"live_price": True},
        {"key": DEFAULT_KEY, "secret": DEFAULT_SECRET},
        {"key": DEFAULT_KEY},
        {"passphrase": PASSPHRASE},
    ]
    for given in refused:
        answer = await client.patch(f"{URL}/{account['id']}", json=given, headers=headers)
        assert_problem(answer, 422)
    assert (await client.get(f"{URL}/{account['id']}", headers=headers)).json() == changed


async def test_new_credentials_are_shown_to_the_exchange_first(
    client: httpx.AsyncClient, headers: dict[str, str], stub: StubExchange, database_url: str
) -> None:
    account = await make(client, headers, **BINANCE, passphrase=PASSPHRASE)
    (before,) = await rows(database_url)
    url = f"{URL}/{account['id']}"
    wrong = {"key": "wrong-key-0123456789abcdefghij", "secret": DEFAULT_SECRET, "name": "new"}
    assert_problem(await client.patch(url, json=wrong, headers=headers), 422)
    assert_problem(await client.patch(url, json={"fee_rate": "0.1"}, headers=headers), 422)
    assert await rows(database_url) == [before]
    calls = len(stub.received)
    await client.patch(url, json={"name": "renamed"}, headers=headers)
    assert len(stub.received) == calls
    right = {"key": DEFAULT_KEY, "secret": DEFAULT_SECRET}
    assert (await client.patch(url, json=right, headers=headers)).json() == account | {"name": "renamed"}
    (after,) = await rows(database_url)
    assert after["key_envelope"] != before["key_envelope"]
    assert after["secret_envelope"] != before["secret_envelope"]
    # Not named with a new key: none.
    assert after["passphrase_envelope"] is None


async def test_a_name_is_taken_once(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    first, second = [await make(client, headers, name=name) for name in ("one", "two")]
    assert_problem(await client.post(URL, json={"name": "one"}, headers=headers), 409)
    assert_problem(await client.post(URL, json=BINANCE | {"name": "one"}, headers=headers), 409)
    assert_problem(
        await client.patch(f"{URL}/{second['id']}", json={"name": first["name"]}, headers=headers), 409
    )
    posts = [client.post(URL, json={"name": "three"}, headers=headers) for _ in range(6)]
    assert sorted(answer.status_code for answer in await asyncio.gather(*posts)) == [201] + [409] * 5


async def test_an_account_that_is_used_stays(
    client: httpx.AsyncClient, headers: dict[str, str], database_url: str, owner_url: str
) -> None:
    account = await make(client, headers, name="mine")
    url = f"{URL}/{account['id']}"
    strategy = {"name": "trend", "exchange_account_id": account["id"]}
    made = (await client.post("/api/v1/strategies", json=strategy, headers=headers)).json()
    used = await client.delete(url, headers=headers)
    assert_problem(used, 409)
    assert "strategy" in used.text
    await client.patch(
        f"/api/v1/strategies/{made['id']}", json={"exchange_account_id": None}, headers=headers
    )
    order = """
        INSERT INTO orders (
            user_id, strategy_id, exchange_account_id, client_order_id, symbol, side, quantity, state
        ) SELECT user_id, $1, id, 'tb1', 'A', 'buy', 1, 'filled' FROM exchange_accounts
    """
    await run(database_url, order, UUID(made["id"]))
    ordered = await client.delete(url, headers=headers)
    assert_problem(ordered, 409)
    assert "Orders" in ordered.text
    await run(owner_url, "DELETE FROM orders")
    assert (await client.delete(url, headers=headers)).status_code == 204
    assert_problem(await client.get(url, headers=headers), 404)


async def test_others_accounts_are_not_there(
    client: httpx.AsyncClient, headers: dict[str, str], settings: Settings, database_url: str
) -> None:
    account = await make(client, headers, name="mine")
    before = await rows(database_url)
    other = await sign_in(settings, "other@mail.test")
    url = f"{URL}/{account['id']}"
    assert_problem(await client.get(url, headers=other), 404)
    assert_problem(await client.patch(url, json={"name": "stolen"}, headers=other), 404)
    assert_problem(await client.delete(url, headers=other), 404)
    assert (await client.get(URL, headers=other)).json()["items"] == []
    assert await rows(database_url) == before


async def test_an_api_key_reads_accounts_and_does_not_change_them(
    client: httpx.AsyncClient, headers: dict[str, str], settings: Settings
) -> None:
    account = await make(client, headers, name="mine")
    key = (await make_account(settings, "trader@mail.test")).headers
    url = f"{URL}/{account['id']}"
    assert (await client.get(url, headers=key)).json() == account
    assert_problem(await client.post(URL, json={"name": "a"}, headers=key), 403)
    assert_problem(await client.patch(url, json={"name": "a"}, headers=key), 403)
    assert_problem(await client.delete(url, headers=key), 403)
    assert_problem(await client.get(url), 401)


async def test_pages(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    names = [(await make(client, headers, name=f"a{number}"))["name"] for number in range(5)]
    seen: list[str] = []
    parameters = {"limit": "2"}
    while True:
        page = (await client.get(URL, params=parameters, headers=headers)).json()
        seen += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == names[::-1]


async def test_one_default_account_whoever_asks_first(
    account: Account,
    settings: Settings,
    client: httpx.AsyncClient,
    headers: dict[str, str],
    database_url: str,
) -> None:
    # Its usual name is taken.
    taken = await make(client, headers, name="Paper")
    database = Database(settings)

    async def ask() -> UUID:
        async with database.transaction() as session:
            found = await repository.find_by_name(session, owner, "Paper")
            assert found is not None
            return (await default_account(session, owner)).id

    owner = (await rows(database_url))[0]["user_id"]
    ids = set(await asyncio.gather(*(ask() for _ in range(8))))
    await database.close()
    assert len(ids) == 1
    (default,) = ids
    assert str(default) != taken["id"]
    shown = (await client.get(f"{URL}/{default}", headers=headers)).json()
    assert (shown["mode"], shown["is_default"], shown["fee_rate"]) == ("paper", True, "0.001")
    assert_problem(await client.delete(f"{URL}/{default}", headers=headers), 409)
    change = await client.patch(f"{URL}/{default}", json={"name": "Mine"}, headers=headers)
    assert change.json()["name"] == "Mine"
