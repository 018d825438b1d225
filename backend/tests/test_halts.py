"""Kill switches: how far each reaches, who may use it, and that events tell of it."""

import asyncio
import json
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.conftest import Account, make_account
from tests.forked import run
from tests.signed_in import sign_in
from tests.test_webhooks import assert_problem
from tradingbot.core.database import Database
from tradingbot.core.settings import Settings
from tradingbot.risk import halts
from tradingbot.risk.halts import EVERYBODY, Target

URL = "/api/v1/risk/halts"


async def fetch(url: str, statement: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    found = await connection.fetch(statement, *values)
    await connection.close()
    return list(found)


async def strategy_of(url: str, account: Account) -> tuple[UUID, UUID]:
    statement = """
        SELECT users.id, strategies.id FROM users JOIN strategies ON user_id = users.id WHERE email = $1
    """
    (row,) = await fetch(url, statement, account.email)
    return row[0], row[1]


async def events_of(url: str, user_id: UUID) -> list[dict[str, Any]]:
    rows = await fetch(url, "SELECT type, data FROM events WHERE user_id = $1 ORDER BY sequence", user_id)
    assert {row["type"] for row in rows} <= {"halt"}
    return [json.loads(row["data"]) for row in rows]


async def items(client: httpx.AsyncClient, headers: dict[str, str]) -> list[dict[str, Any]]:
    answer = await client.get(URL, headers=headers)
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_a_strategy_is_halted_and_released(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    user_id, strategy_id = await strategy_of(database_url, account)
    url = f"{URL}/strategies/{strategy_id}"
    halted = await client.put(url, json={"reason": " maintenance "}, headers=account.headers)
    assert halted.status_code == 200
    halt = halted.json()
    expected = {
        "reach": "strategy",
        "strategy_id": str(strategy_id),
        "reason": "maintenance",
        "flatten": False,
    }
    assert halt == expected | {"created_at": halt["created_at"]}
    assert await items(client, account.headers) == [halt]
    again = await client.put(url, headers=account.headers)
    assert again.json() == halt | {"reason": None}
    for _ in range(2):
        assert (await client.delete(url, headers=account.headers)).status_code == 204
    assert await items(client, account.headers) == []
    events = await events_of(database_url, user_id)
    assert [(event["halted"], event["reason"]) for event in events] == [
        (True, "maintenance"),
        (True, None),
        (False, None),
    ]
    assert {event["strategy_id"] for event in events} == {str(strategy_id)}


async def test_all_of_a_user(
    client: httpx.AsyncClient, account: Account, settings: Settings, database_url: str
) -> None:
    other = await make_account(settings, "other@mail.test")
    assert (await client.put(f"{URL}/all", headers=account.headers)).json()["reach"] == "all"
    assert [item["reach"] for item in await items(client, account.headers)] == ["all"]
    assert await items(client, other.headers) == []
    assert (await client.delete(f"{URL}/all", headers=account.headers)).status_code == 204
    assert await items(client, account.headers) == []


async def test_everybody_by_an_administrator_alone(
    client: httpx.AsyncClient, account: Account, settings: Settings, database_url: str
) -> None:
    user_id, _strategy_id = await strategy_of(database_url, account)
    admin = await sign_in(settings, "admin@mail.test", is_admin=True)
    url = f"{URL}/everybody"
    for headers in (account.headers, await sign_in(settings, account.email)):
        assert_problem(await client.put(url, headers=headers), 403)
        assert_problem(await client.delete(url, headers=headers), 403)
    halt = (await client.put(url, json={"reason": "fire"}, headers=admin)).json()
    assert halt["reach"] == "everybody"
    assert await items(client, account.headers) == [halt]
    # Their own switch does not end it.
    await client.delete(f"{URL}/all", headers=account.headers)
    assert await items(client, account.headers) == [halt]
    assert (await client.delete(url, headers=admin)).status_code == 204
    assert await items(client, account.headers) == []
    events = await events_of(database_url, user_id)
    assert [(event["reach"], event["halted"]) for event in events] == [
        ("everybody", True),
        ("everybody", False),
    ]


async def test_others_strategies_are_not_there(
    client: httpx.AsyncClient, account: Account, settings: Settings, database_url: str
) -> None:
    other = await make_account(settings, "other@mail.test")
    _user_id, strategy_id = await strategy_of(database_url, account)
    url = f"{URL}/strategies/{strategy_id}"
    assert_problem(await client.put(url, headers=other.headers), 404)
    await client.put(url, headers=account.headers)
    assert_problem(await client.delete(url, headers=other.headers), 404)
    assert len(await items(client, account.headers)) == 1
    assert await items(client, other.headers) == []


@pytest.mark.parametrize(
    "body", [{"reason": ""}, {"reason": "x" * 501}, {"raison": "x"}, {"reason": "a\x00"}, []]
)
async def test_a_reason_that_cannot_be_stored(client: httpx.AsyncClient, account: Account, body: Any) -> None:
    assert_problem(await client.put(f"{URL}/all", json=body, headers=account.headers), 422)
    assert await items(client, account.headers) == []


async def test_a_key_that_reads_does_not_halt(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    await fetch(database_url, "UPDATE api_keys SET scopes = '{read}'")
    assert_problem(await client.put(f"{URL}/all", headers=account.headers), 403)
    assert await items(client, account.headers) == []
    assert_problem(await client.get(URL), 401)


async def test_the_same_halt_at_once_is_one(client: httpx.AsyncClient, account: Account) -> None:
    puts = [client.put(f"{URL}/all", json={"reason": str(n)}, headers=account.headers) for n in range(8)]
    assert {answer.status_code for answer in await asyncio.gather(*puts)} == {200}
    assert len(await items(client, account.headers)) == 1


async def test_on_and_off_at_once_end_in_one_of_both(client: httpx.AsyncClient, account: Account) -> None:
    calls = [
        client.request(method, f"{URL}/all", headers=account.headers)
        for method in ("PUT", "DELETE", "PUT", "DELETE", "PUT", "DELETE")
    ]
    assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200, 204}
    assert len(await items(client, account.headers)) in (0, 1)


# Every combination of halts that are on: everybody's, the user's, the strategy's, and those of others.
@pytest.mark.parametrize("on", list(product([False, True], repeat=5)))
async def test_find_gives_the_farthest_reaching(
    settings: Settings, account: Account, database_url: str, on: tuple[bool, ...]
) -> None:
    user_id, strategy_id = await strategy_of(database_url, account)
    other_user, other_strategy = await strategy_of(
        database_url, await make_account(settings, "other@mail.test")
    )
    targets = [
        EVERYBODY,
        Target(user_id),
        Target(user_id, strategy_id),
        Target(other_user),
        Target(other_user, other_strategy),
    ]
    database = Database(settings)
    async with database.transaction() as session:
        for target, is_on in zip(targets, on, strict=True):
            if is_on:
                await halts.switch_on(session, target, "because")
        found = await halts.find(session, user_id, strategy_id)
    await database.close()
    expected = next((target for target, is_on in zip(targets[:3], on, strict=False) if is_on), None)
    assert (found and Target(found.user_id, found.strategy_id)) == expected


async def test_a_strategy_that_is_deleted_while_it_is_halted(
    client: httpx.AsyncClient, account: Account, database_url: str
) -> None:
    _, strategy_id = await strategy_of(database_url, account)
    deleter = await asyncpg.connect(database_url)
    deletion = deleter.transaction()
    await deletion.start()
    await deleter.execute("DELETE FROM strategies")
    halting = asyncio.create_task(client.put(f"{URL}/strategies/{strategy_id}", headers=account.headers))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with asyncio.timeout(60):
        while not await deleter.fetchval(waiting):
            await asyncio.sleep(0.02)
            await deleter.execute("SELECT pg_stat_clear_snapshot()")
    await deletion.commit()
    await deleter.close()
    assert_problem(await halting, 404)


async def test_pages(client: httpx.AsyncClient, account: Account) -> None:
    paths = [f"{URL}/all"]
    for name in ("second", "third"):
        answer = await client.post("/api/v1/strategies", json={"name": name}, headers=account.headers)
        paths.append(f"{URL}/strategies/{answer.json()['id']}")
    made = [(await client.put(path, headers=account.headers)).json() for path in paths]
    found: list[dict[str, Any]] = []
    parameters = {"limit": "2"}
    while True:
        page = (await client.get(URL, params=parameters, headers=account.headers)).json()
        found += page["items"]
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == 2
        parameters["cursor"] = page["next_cursor"]
    assert found == made[::-1]


async def test_the_command_line(client: httpx.AsyncClient, account: Account) -> None:
    halt = ("halt", "on", "--reason", "fire")
    assert run("halt", "status").stdout == "nothing is halted\n"
    assert run(*halt).stdout == "halted: everybody: no new entries, exits pass\n"
    mine = ("--user", account.email)
    assert run(*halt, *mine).returncode == 0
    first = run(*halt, *mine, "--strategy", "first").stdout
    assert first == f"halted: {account.email} first: no new entries, exits pass\n"
    shown = [(item["reach"], item["reason"]) for item in await items(client, account.headers)]
    assert shown == [("strategy", "fire"), ("all", "fire"), ("everybody", "fire")]
    lines = run("halt", "status").stdout.splitlines()
    assert [line.split("Z  ")[1] for line in lines] == [
        "everybody  fire",
        f"{account.email} all strategies  fire",
        f"{account.email} first  fire",
    ]
    listed = json.loads(run("halt", "status", "--json").stdout)
    assert [(item["user"], item["strategy"]) for item in listed] == [
        (None, None),
        (account.email, None),
        (account.email, "first"),
    ]
    assert run("halt", "off").stdout == "no longer halted: everybody\n"
    assert run("halt", "off").stdout == "was not halted: everybody\n"
    assert run("halt", "off", *mine).returncode == 0
    assert [item["reach"] for item in await items(client, account.headers)] == ["strategy"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--strategy", "first"), "--strategy needs --user", 1),
        (("--user", "nobody@mail.test"), "There is no user", 1),
        (("--user", "trader@mail.test", "--strategy", "none"), "no strategy named none", 1),
        (("--user", "nobody"), "not an e-mail address", 2),
        (("--reason", " "), "1 to 500", 2),
    ],
)
def test_what_the_command_line_refuses(
    account: Account, arguments: tuple[str, ...], said: str, code: int
) -> None:
    done = run("halt", "on", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert run("halt", "status").stdout == "nothing is halted\n"
