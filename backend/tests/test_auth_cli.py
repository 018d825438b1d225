"""The commands for accounts and API keys."""

import json
import os
import pty
import subprocess
from typing import Any

import httpx
import pytest

from tests.access import EMAIL, PASSWORD, login, refresh, sign_in
from tests.conftest import Account
from tests.forked import run
from tests.test_webhooks import assert_problem

ME = "/api/v1/auth/me"


def user(action: str, *arguments: str, given: str = "", email: str = EMAIL) -> int:
    result = run("user", action, "--email", email, *arguments, given=given)
    assert (result.returncode == 0) == (result.stderr == ""), result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    return result.returncode


def listed(*arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


async def test_life_of_an_account(client: httpx.AsyncClient) -> None:
    assert user("create", "--admin", "--password-stdin", given=f"{PASSWORD}\n") == 0
    assert user("create", "--password-stdin", given=f"{PASSWORD}\n") == 1
    (row,) = listed("user", "list")
    assert row.pop("created_at").endswith("+00:00")
    assert row == {"email": EMAIL, "is_active": True, "is_admin": True, "has_password": True}
    session = await sign_in(client)
    assert (await client.get(ME, headers=session.headers)).json()["is_admin"]

    assert user("revoke-admin") == 0
    assert not (await client.get(ME, headers=session.headers)).json()["is_admin"]
    assert user("grant-admin") == 0

    assert user("set-password", "--password-stdin", given="another good password") == 0
    assert_problem(await client.get(ME, headers=session.headers), 401)
    assert_problem(await login(client), 401)
    session = await sign_in(client, password="another good password")

    assert user("deactivate") == 0
    assert_problem(await login(client, password="another good password"), 401)
    assert user("activate") == 0
    # The sessions of before stay ended.
    assert_problem(await client.get(ME, headers=session.headers), 401)
    assert_problem(await refresh(client, session.refresh_token), 401)
    await sign_in(client, password="another good password")


async def test_account_that_a_key_was_made_for_gets_a_password(
    client: httpx.AsyncClient, account: Account
) -> None:
    assert user("create", "--password-stdin", given=PASSWORD) == 1
    table = run("user", "list").stdout.splitlines()
    assert table[0].split() == ["email", "is_active", "is_admin", "has_password", "created_at"]
    assert table[1].split()[:4] == [EMAIL, "yes", "no", "no"]
    assert user("set-password", "--password-stdin", given=PASSWORD) == 0
    await sign_in(client)


@pytest.mark.parametrize("password", ["", "too short", EMAIL, "x" * 300, "\ud800" * 12, "Password1234"])
def test_password_that_is_refused(environment: dict[str, str], password: str) -> None:
    result = run("user", "create", "--email", EMAIL, "--password-stdin", given=password)
    assert result.returncode == 1
    assert "a password" in result.stderr
    assert listed("user", "list") == []


@pytest.mark.parametrize("action", ["set-password", "activate", "deactivate", "grant-admin", "revoke-admin"])
def test_nobody(environment: dict[str, str], action: str) -> None:
    arguments = ["--password-stdin"] if action == "set-password" else []
    result = run("user", action, "--email", "nobody@mail.test", *arguments, given=PASSWORD)
    assert (result.returncode, result.stderr) == (1, "there is no user nobody@mail.test\n")


def ask(*passwords: str) -> tuple[int, str]:
    """Runs `user create` with a terminal for its standard input."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["tradingbot", "user", "create", "--email", EMAIL],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        seen = ""
        for password in passwords:
            while not seen.endswith(": "):
                seen += process.stderr.read(1)
            seen += "|"
            os.write(ours, f"{password}\n".encode())
        seen += process.stderr.read()
        code = process.wait(60)
    os.close(ours)
    return code, seen


async def test_password_is_asked_for_twice(client: httpx.AsyncClient) -> None:
    code, seen = ask(PASSWORD, "something else")
    assert code == 1
    assert "differ" in seen
    assert ask(PASSWORD, PASSWORD)[0] == 0
    await sign_in(client)


def test_no_terminal(environment: dict[str, str]) -> None:
    result = run("user", "create", "--email", EMAIL)
    assert result.returncode == 1
    assert "--password-stdin" in result.stderr


async def test_life_of_an_api_key(client: httpx.AsyncClient, environment: dict[str, str]) -> None:
    both = json.loads(run("api-key", "create", "--user", EMAIL, "--name", "both", "--json").stdout)
    assert both["scopes"] == ["read", "trade"]
    assert both["expires_at"] is None
    arguments = ("--scope", "read", "--expires-days", "7", "--json")
    read = json.loads(run("api-key", "create", "--user", EMAIL, "--name", "reader", *arguments).stdout)
    assert read["scopes"] == ["read"]
    me = await client.get(ME, headers={"X-API-Key": read["api_key"]})
    assert me.json()["scopes"] == ["read"]

    reader, first = listed("api-key", "list", "--user", EMAIL)
    assert (first["name"], first["last_used_at"]) == ("both", None)
    assert reader["last_used_at"] is not None
    assert reader["expires_at"] == read["expires_at"]
    assert read["api_key"].startswith(reader["prefix"])
    table = run("api-key", "list", "--user", EMAIL).stdout
    assert "read,trade" in table
    assert read["api_key"] not in table

    revoke = ("api-key", "revoke", "--user", EMAIL, read["id"])
    assert run("api-key", "revoke", "--user", "other@mail.test", read["id"]).returncode == 1
    assert (await client.get(ME, headers={"X-API-Key": read["api_key"]})).status_code == 200
    assert run(*revoke).returncode == 0
    assert run(*revoke).returncode == 1
    assert_problem(await client.get(ME, headers={"X-API-Key": read["api_key"]}), 401)
    assert [key["name"] for key in listed("api-key", "list", "--user", EMAIL)] == ["both"]
    assert run("api-key", "list", "--user", "other@mail.test").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--user", EMAIL, "--name", "k", "--scope", "admin"),
        ("create", "--user", EMAIL, "--name", "k", "--expires-days", "0"),
        ("create", "--user", EMAIL, "--name", "k", "--expires-days", "3651"),
        ("create", "--user", EMAIL, "--name", "k", "--expires-days", "²"),
        ("create", "--user", EMAIL, "--name", "k", "--expires-days", "00036599999999"),
        ("revoke", "--user", EMAIL, "1"),
    ],
)
def test_arguments_that_are_refused(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    assert run("api-key", *arguments).returncode == 2
