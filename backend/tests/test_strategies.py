"""Strategies: what they may be, who may change them, and where their alerts go."""

import asyncio
import json
import subprocess
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Account, make_account
from tests.desk import open_desk
from tests.forked import run
from tests.test_webhooks import assert_problem
from tradingbot.core.settings import Settings
from tradingbot.core.symbols import market_of
from tradingbot.strategies.symbols import allows, overlap, without_repetition

URL = "/api/v1/strategies"
ALERT = {"symbol": "BTCUSDT", "action": "buy"}


async def make(client: httpx.AsyncClient, account: Account, **settings: Any) -> dict[str, Any]:
    answer = await client.post(URL, json={"name": "trend", **settings}, headers=account.headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    strategy: dict[str, Any] = answer.json()
    return strategy


def path(strategy: dict[str, Any], *more: str) -> str:
    return "/".join([URL, strategy["id"], *more])


def hook(strategy: dict[str, Any]) -> str:
    return str(strategy["webhook_url"]).removeprefix("http://localhost:8001")


async def test_a_new_strategy_takes_alerts_at_the_address_that_is_shown_once(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    strategy = await make(client, account)
    assert hook(strategy).startswith("/api/v1/webhooks/tradingview/tbw_")
    assert (await client.post(hook(strategy), json=ALERT)).status_code == 202
    shown = (await client.get(path(strategy), headers=account.headers)).json()
    assert shown == {name: value for name, value in strategy.items() if name != "webhook_url"}
    assert shown["sizing"] == "alert"
    assert shown["is_active"] is True
    signals = (await client.get("/api/v1/signals", headers=account.headers)).json()["items"]
    assert [signal["strategy_id"] for signal in signals] == [strategy["id"]]


async def test_everything_that_is_set_comes_back(client: httpx.AsyncClient, account: Account) -> None:
    given = {
        "symbols": ["BTCUSDT", "btcusdt", "BINANCE:ETHUSDT.P"],
        "sizing": "equity_percent",
        "sizing_value": "12.5",
        "max_position": "0.000000000000000001",
        "max_order_value": 1000,
        "max_daily_loss": 99.5,
        "max_orders_per_minute": 6,
        "max_alert_age": 30,
        "model_name": "tiny-lstm",
        "model_mode": "veto",
        "is_active": False,
    }
    strategy = await make(client, account, **given)
    expected = given | {
        "symbols": ["BTCUSDT", "BINANCE:ETHUSDT.P"],
        "max_order_value": "1000",
        "max_daily_loss": "99.5",
    }
    assert {name: strategy[name] for name in expected} == expected
    assert (await client.post(hook(strategy), json=ALERT)).status_code == 404


INVALID = [
    ({"name": ""}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"name": "a\x00b"}, "name"),
    ({"name": "\ud800"}, "name"),
    ({"name": None}, "name"),
    ({"max_order_valu": "5"}, "max_order_valu"),
    ({"symbols": [""]}, "symbols"),
    ({"symbols": ["x" * 65]}, "symbols"),
    ({"symbols": ["X"] * 201}, "symbols"),
    ({"sizing": "all_in"}, "sizing"),
    ({"sizing": "fixed_quote"}, "sizing_value"),
    ({"sizing_value": "0"}, "sizing_value"),
    ({"sizing_value": "-1"}, "sizing_value"),
    ({"sizing_value": True}, "sizing_value"),
    ({"max_position": "1e-19"}, "max_position"),
    ({"max_position": "1e999999999"}, "max_position"),
    ({"max_position": "99999999999999999999.9999999999999999999"}, "max_position"),
    ({"max_position": "NaN"}, "max_position"),
    ({"max_orders_per_minute": 0}, "max_orders_per_minute"),
    ({"max_orders_per_minute": "1_0"}, "max_orders_per_minute"),
    ({"max_alert_age": True}, "max_alert_age"),
    ({"max_position": "1_000"}, "max_position"),
    ({"max_alert_age": 0}, "max_alert_age"),
    ({"model_mode": "veto"}, "model_name"),
    ({"model_name": "../etc", "model_mode": "veto"}, "model_name"),
    ({"exchange_account_id": "x"}, "exchange_account_id"),
    ({"exchange_account_id": str(uuid4())}, "exchange account"),
]


@pytest.mark.parametrize(("change", "named"), INVALID)
async def test_what_is_not_valid_is_refused_by_name(
    client: httpx.AsyncClient, account: Account, change: dict[str, Any], named: str
) -> None:
    # Not by `json=`: it cannot write half of a surrogate pair, and JSON can.
    headers = account.headers | {"Content-Type": "application/json"}
    body = json.dumps({"name": "trend", **change})
    answer = await client.post(URL, content=body, headers=headers)
    assert_problem(answer, 422)
    assert named in answer.text
    strategy = await make(client, account)
    changed = await client.patch(path(strategy), content=json.dumps(change), headers=headers)
    assert_problem(changed, 422)
    assert named in changed.text
    assert (await client.get(path(strategy), headers=account.headers)).json()["name"] == "trend"


async def test_a_patch_changes_what_it_names_and_null_clears_a_limit(
    client: httpx.AsyncClient, account: Account
) -> None:
    strategy = await make(client, account, max_position="5", max_daily_loss="7", symbols=["A"])
    before = (await client.get(path(strategy), headers=account.headers)).json()
    change: dict[str, Any] = {"max_position": None, "max_orders_per_minute": 3, "symbols": []}
    after = (await client.patch(path(strategy), json=change, headers=account.headers)).json()
    assert after == before | change
    assert (await client.get(path(strategy), headers=account.headers)).json() == after
    assert (await client.patch(path(strategy), json={}, headers=account.headers)).json() == after


async def test_a_patch_is_judged_with_what_stays(client: httpx.AsyncClient, account: Account) -> None:
    strategy = await make(client, account, sizing="fixed_quantity", sizing_value="1")
    url = path(strategy)
    assert_problem(await client.patch(url, json={"sizing_value": None}, headers=account.headers), 422)
    changed = await client.patch(url, json={"sizing": "fixed_quote"}, headers=account.headers)
    assert (changed.json()["sizing"], changed.json()["sizing_value"]) == ("fixed_quote", "1")
    cleared = {"sizing": "alert", "sizing_value": None}
    assert (await client.patch(url, json=cleared, headers=account.headers)).status_code == 200


async def test_off_and_on(client: httpx.AsyncClient, account: Account) -> None:
    strategy = await make(client, account)
    for active, status in ((False, 404), (True, 202)):
        await client.patch(path(strategy), json={"is_active": active}, headers=account.headers)
        assert (await client.post(hook(strategy), json=ALERT)).status_code == status


async def test_a_name_is_taken_once_by_each_user(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    strategy = await make(client, account)
    again = await client.post(URL, json={"name": " trend "}, headers=account.headers)
    assert_problem(again, 409)
    assert "trend" in again.json()["detail"]
    assert_problem(await client.patch(path(strategy), json={"name": "first"}, headers=account.headers), 409)
    assert (
        await client.patch(path(strategy), json={"name": "trend"}, headers=account.headers)
    ).status_code == 200
    await make(client, await make_account(settings, "other@mail.test"))


async def test_the_same_name_at_once(client: httpx.AsyncClient, account: Account) -> None:
    posts = [client.post(URL, json={"name": "trend"}, headers=account.headers) for _ in range(8)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*posts))
    assert statuses == [201] + [409] * 7


async def test_a_rotated_token_is_dead_at_once(client: httpx.AsyncClient, account: Account) -> None:
    strategy = await make(client, account)
    rotated = await client.post(path(strategy, "webhook-token"), headers=account.headers)
    assert rotated.headers["cache-control"] == "no-store"
    assert_problem(await client.post(hook(strategy), json=ALERT), 404)
    assert (await client.post(hook(rotated.json()), json=ALERT)).status_code == 202


async def test_secrets(client: httpx.AsyncClient, account: Account, database_url: str) -> None:
    strategy = await make(client, account)
    url = path(strategy, "secret")

    async def alert(secret: str, number: int) -> int:
        body = ALERT | {"secret": secret, "id": number}
        return (await client.post(hook(strategy), json=body)).status_code

    made = (await client.post(url, headers=account.headers)).json()["secret"]
    assert await alert(made, 1) == 202
    mine = "hV3rQ8mZ1xT6bN4kLp"
    answer = await client.post(url, json={"secret": f" {mine} "}, headers=account.headers)
    assert answer.json() == {"secret": mine}
    assert answer.headers["cache-control"] == "no-store"
    assert [await alert(made, 2), await alert(mine, 3)] == [403, 202]
    assert (await client.get(path(strategy), headers=account.headers)).json()["has_secret"] is True
    connection = await asyncpg.connect(database_url)
    stored = await connection.fetchval("SELECT secret_hash FROM strategies WHERE name = 'trend'")
    await connection.close()
    assert len(stored) == 64
    assert mine not in stored
    assert (await client.delete(url, headers=account.headers)).status_code == 204
    assert await alert(mine, 4) == 403
    assert (await client.get(path(strategy), headers=account.headers)).json()["has_secret"] is False


@pytest.mark.parametrize(
    "secret", ["changeme-changeme", "brief", "x" * 513, "a" * 32, "tab\tin-it-0123456789"]
)
async def test_a_weak_secret_is_refused_and_not_repeated(
    client: httpx.AsyncClient, account: Account, secret: str
) -> None:
    strategy = await make(client, account)
    answer = await client.post(path(strategy, "secret"), json={"secret": secret}, headers=account.headers)
    assert_problem(answer, 422)
    assert secret not in answer.text


async def test_pages(client: httpx.AsyncClient, account: Account) -> None:
    names = [(await make(client, account, name=f"s{number}"))["name"] for number in range(5)]
    seen: list[str] = []
    parameters = {"limit": "2"}
    while True:
        page = (await client.get(URL, params=parameters, headers=account.headers)).json()
        seen += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == [*reversed(names), "first"]


async def test_others_strategies_are_not_there(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    strategy = await make(client, account)
    other = (await make_account(settings, "other@mail.test")).headers
    calls = [
        client.get(path(strategy), headers=other),
        client.patch(path(strategy), json={"name": "mine"}, headers=other),
        client.delete(path(strategy), headers=other),
        client.post(path(strategy, "webhook-token"), headers=other),
        client.post(path(strategy, "secret"), headers=other),
        client.delete(path(strategy, "secret"), headers=other),
    ]
    for call in calls:
        assert_problem(await call, 404)
    assert (await client.get(path(strategy), headers=account.headers)).json()["has_secret"] is False
    assert (await client.post(hook(strategy), json=ALERT)).status_code == 202
    assert [item["name"] for item in (await client.get(URL, headers=other)).json()["items"]] == ["first"]


async def test_a_key_that_reads_does_not_write(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    strategy = await make(client, account)
    await store(database_url, "UPDATE api_keys SET scopes = '{read}'")
    assert (await client.get(path(strategy), headers=account.headers)).status_code == 200
    assert_problem(await client.post(URL, json={"name": "x"}, headers=account.headers), 403)
    assert_problem(await client.patch(path(strategy), json={"name": "x"}, headers=account.headers), 403)
    assert_problem(await client.delete(path(strategy), headers=account.headers), 403)
    assert_problem(await client.get(URL), 401)


async def test_delete(client: httpx.AsyncClient, account: Account, database_url: str) -> None:
    strategy = await make(client, account)
    assert (await client.delete(path(strategy), headers=account.headers)).status_code == 204
    assert_problem(await client.get(path(strategy), headers=account.headers), 404)
    assert_problem(await client.delete(path(strategy), headers=account.headers), 404)


async def test_a_strategy_with_work_or_orders_stays(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    strategy = await make(client, account)
    await client.post(hook(strategy), json=ALERT)
    waiting = await client.delete(path(strategy), headers=account.headers)
    assert_problem(waiting, 409)
    assert "still to be worked on" in waiting.text
    await store(database_url, "DELETE FROM outbox")
    await store(database_url, ORDER, "filled")
    traded = await client.delete(path(strategy), headers=account.headers)
    assert_problem(traded, 409)
    assert "switch it off instead" in traded.text


ORDER = """
    WITH account AS (
        INSERT INTO exchange_accounts (user_id, name, exchange, mode)
        SELECT user_id, 'of the order', 'paper', 'paper' FROM strategies WHERE name = 'trend'
        RETURNING id, user_id
    )
    INSERT INTO orders (
        user_id, strategy_id, exchange_account_id, client_order_id, symbol, side, quantity, state
    )
    SELECT user_id, strategies.id, account.id, 'tb1', 'A', 'buy', 1, $1
    FROM account JOIN strategies USING (user_id) WHERE strategies.name = 'trend'
"""
POSITION = """
    INSERT INTO positions (user_id, strategy_id, symbol, quantity)
    SELECT user_id, id, 'A', -1 FROM strategies WHERE name = 'trend'
"""


async def store(url: str, statement: str, *values: Any) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement, *values)
    await connection.close()


@pytest.mark.parametrize(("state", "status"), [("unknown", 409), ("cancelled", 200)])
async def test_the_account_does_not_change_under_an_open_order(
    client: httpx.AsyncClient, account: Account, database_url: str, state: str, status: int
) -> None:
    strategy = await make(client, account)
    await store(database_url, ORDER, state)
    accounts = (await client.get("/api/v1/exchange-accounts", headers=account.headers)).json()["items"]
    change = {"exchange_account_id": accounts[0]["id"]}
    answer = await client.patch(path(strategy), json=change, headers=account.headers)
    assert answer.status_code == status, answer.text


async def test_the_account_does_not_change_under_a_position(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    strategy = await make(client, account)
    await store(database_url, ORDER, "filled")
    await store(database_url, POSITION)
    accounts = (await client.get("/api/v1/exchange-accounts", headers=account.headers)).json()["items"]
    change = {"exchange_account_id": accounts[0]["id"]}
    assert_problem(await client.patch(path(strategy), json=change, headers=account.headers), 409)
    await store(database_url, "UPDATE positions SET quantity = 0")
    assert (await client.patch(path(strategy), json=change, headers=account.headers)).status_code == 200


async def test_the_account_of_another_user_is_not_there(
    client: httpx.AsyncClient, account: Account, settings: Settings, database_url: str
) -> None:
    other = await make_account(settings, "other@mail.test")
    await make(client, other)
    await store(database_url, ORDER, "filled")
    accounts = (await client.get("/api/v1/exchange-accounts", headers=other.headers)).json()["items"]
    body = {"name": "trend", "exchange_account_id": accounts[0]["id"]}
    answer = await client.post(URL, json=body, headers=account.headers)
    assert_problem(answer, 422)
    assert "no such exchange account" in answer.text


@given(st.lists(st.text(min_size=1, max_size=5)))
def test_symbols_keep_their_first_spelling(symbols: list[str]) -> None:
    kept = without_repetition(symbols)
    assert len({market_of(symbol) for symbol in kept}) == len(kept)
    assert all(allows(kept, symbol) for symbol in symbols)
    assert [symbol for symbol in symbols if symbol in kept][: len(kept)][:1] == symbols[:1]


def test_allowed_symbols() -> None:
    assert allows([], "ANY")
    for spelling in ("btcusdt", "BINANCE:BTCUSDT", "BTC/USDT", "BTC-USDT", "BTCUSDT.P"):
        assert allows(["BTCUSDT"], spelling)
        assert allows([spelling], "BTCUSDT")
    assert not allows(["BTCUSDT"], "BTCUSDC")


@pytest.mark.parametrize(
    ("one", "other", "market"),
    [
        ([], [], "any market"),
        (["BTCUSDT"], [], "BTCUSDT"),
        ([], ["ETHUSDT"], "ETHUSDT"),
        (["ETHUSDT", "BTCUSDT.P"], ["BINANCE:BTCUSDT"], "BTCUSDT"),
        (["ETHUSDT"], ["BTCUSDT"], None),
    ],
)
def test_markets_that_two_strategies_share(one: list[str], other: list[str], market: str | None) -> None:
    assert overlap(one, other) == market


async def test_a_futures_market_of_an_account_has_one_strategy(
    client: httpx.AsyncClient, account: Account, settings: Settings
) -> None:
    async with open_desk(settings, account.email) as desk:
        futures = str(await desk.account(market="future", mode="demo"))
        others = [
            str(await desk.account(**columns))
            for columns in ({}, {"market": "future", "mode": "paper"}, {"market": "future", "mode": "demo"})
        ]

    async def made(name: str, account_id: str, *symbols: str, **more: Any) -> httpx.Response:
        body = {"name": name, "exchange_account_id": account_id, "symbols": symbols, **more}
        return await client.post(URL, json=body, headers=account.headers)

    assert (await made("one", futures, "BTCUSDT")).status_code == 201
    for symbols in ((), ("BINANCE:BTCUSDT.P", "ETHUSDT")):
        refused = await made("two", futures, *symbols)
        assert_problem(refused, 409)
        assert "Strategy one trades BTCUSDT on this futures account" in refused.text
    # One that is off, another market, and accounts of other kinds.
    off = await made("off", futures, "BTCUSDT", is_active=False)
    two = await made("two", futures, "ETHUSDT")
    assert {off.status_code, two.status_code} == {201}
    for number, other in enumerate(others):
        for name in ("a", "b"):
            expected = 409 if number == 2 and name == "b" else 201
            assert (await made(f"{name}{number}", other, "BTCUSDT")).status_code == expected

    async def changed(answer: httpx.Response, **body: Any) -> int:
        path = f"{URL}/{answer.json()['id']}"
        return (await client.patch(path, json=body, headers=account.headers)).status_code

    assert await changed(off, name="still off") == 200
    assert await changed(off, is_active=True) == 409
    assert await changed(two, symbols=["BTCUSDT"]) == 409
    assert await changed(two, symbols=["ETHUSDT", "XRPUSDT"]) == 200
    assert await changed(off, symbols=["LTCUSDT"], is_active=True) == 200


async def test_an_account_that_is_deleted_while_a_strategy_is_made_for_it(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    strategy = await make(client, account)
    deleter = await asyncpg.connect(database_url)
    account_id = await deleter.fetchval(
        "INSERT INTO exchange_accounts (user_id, name, exchange, mode)"
        " SELECT id, 'short-lived', 'paper', 'paper' FROM users RETURNING id::text"
    )
    deletion = deleter.transaction()
    await deletion.start()
    await deleter.execute("SELECT 1 FROM exchange_accounts WHERE name = 'short-lived' FOR UPDATE")
    body = {"name": "late", "exchange_account_id": account_id}
    requests = [
        client.post(URL, json=body, headers=account.headers),
        client.patch(path(strategy), json=body, headers=account.headers),
    ]
    tasks = [asyncio.create_task(request) for request in requests]
    async with asyncio.timeout(60):
        while (
            await deleter.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") < 2
        ):
            await asyncio.sleep(0.02)
            await deleter.execute("SELECT pg_stat_clear_snapshot()")
    await deleter.execute("DELETE FROM exchange_accounts WHERE name = 'short-lived'")
    await deletion.commit()
    await deleter.close()
    for answer in await asyncio.gather(*tasks):
        assert assert_problem(answer, 422)["detail"] == "You have no such exchange account."


def by_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("strategy", *arguments, "--user", "trader@mail.test")


async def test_the_command_line_makes_lists_and_rotates(client: httpx.AsyncClient, account: Account) -> None:
    options = [
        "--symbol",
        "BTCUSDT",
        "--symbol",
        "ETHUSDT",
        "--sizing",
        "fixed_quote",
        "--sizing-value",
        "250",
    ]
    limits = ["--max-position", "0.5", "--max-orders-per-minute", "6", "--max-alert-age", "30"]
    made = by_command("create", "--name", "trend", *options, *limits, "--json")
    assert made.returncode == 0, made.stderr
    strategy = json.loads(made.stdout)
    assert (await client.post(hook(strategy), json=ALERT)).status_code == 202
    (shown, _first) = json.loads(by_command("list", "--json").stdout)
    assert shown == (await client.get(f"{URL}/{shown['id']}", headers=account.headers)).json()
    expected = {
        "name": "trend",
        "symbols": ["BTCUSDT", "ETHUSDT"],
        "sizing": "fixed_quote",
        "sizing_value": "250",
        "max_position": "0.5",
        "max_daily_loss": None,
        "max_orders_per_minute": 6,
        "max_alert_age": 30,
    }
    assert {name: shown[name] for name in expected} == expected
    rotated = by_command("rotate-token", "--name", "trend")
    assert rotated.stdout.startswith("http://localhost:8001/api/v1/webhooks/tradingview/tbw_")
    assert (await client.post(hook(strategy), json=ALERT)).status_code == 404
    again = hook({"webhook_url": rotated.stdout.strip()})
    assert (await client.post(again, json=ALERT | {"id": 2})).status_code == 202
    lines = by_command("list").stdout.splitlines()
    assert [line.split("  ", 2)[2] for line in lines] == ["trend  BTCUSDT, ETHUSDT", "first  any symbol"]


async def test_the_command_line_names_the_account(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    await make(client, account)
    await store(database_url, ORDER, "filled")
    made = by_command("create", "--name", "on it", "--account", "of the order", "--json")
    assert made.returncode == 0, made.stderr
    accounts = (await client.get("/api/v1/exchange-accounts", headers=account.headers)).json()["items"]
    newest = (await client.get(URL, headers=account.headers)).json()["items"][0]
    assert (newest["name"], newest["exchange_account_id"]) == ("on it", accounts[0]["id"])


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("create", "--name", "x", "--sizing", "fixed_quote"), "needs a sizing_value", 2),
        (("create", "--name", "x", "--sizing", "huge"), "invalid choice", 2),
        (("create", "--name", "x", "--max-position", "-1"), "--max-position: ", 2),
        (("create", "--name", "x", "--max-orders-per-minute", "many"), "--max-orders-per-minute: ", 2),
        (("create", "--name", "x", "--symbol", " "), "--symbol", 2),
        (("create", "--name", "x", "--account", "none"), "no exchange account named none", 1),
        (("create", "--name", "first"), "choose another --name", 1),
        (("rotate-token", "--name", "none"), "no strategy named none", 1),
    ],
)
def test_what_the_command_line_refuses(
    account: Account, arguments: tuple[str, ...], said: str, code: int
) -> None:
    done = by_command(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_knows_no_such_user(account: Account) -> None:
    done = run("strategy", "list", "--user", "nobody@mail.test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "There is no user nobody@mail.test.\n"
