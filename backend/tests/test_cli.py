"""The commands other than serve and migrate."""

import json
import subprocess

import httpx
import pytest

from tests.forked import run
from tests.network import free_port
from tradingbot import __version__
from tradingbot.core.redaction import redact
from tradingbot.core.tokens import TokenKind, hash_token, is_well_formed, new_token


def installed(*arguments: str) -> str:
    """What the command says as it is installed."""
    command = ["tradingbot", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_version_and_help() -> None:
    assert installed("version") == f"tradingbot {__version__}\n"
    text = installed("--help")
    for command in ("serve", "migrate", "check", "strategy", "api-key", "health"):
        assert command in text


def test_check_is_a_table_and_names_what_fails(environment: dict[str, str]) -> None:
    good = run("check")
    assert good.returncode == 0, good.stdout
    assert len(good.stdout.splitlines()) == 7
    bad = run("check", REDIS_URL=f"redis://:Xa8sdKq2@127.0.0.1:{free_port()}/0")
    assert bad.returncode == 1
    assert bad.stderr.strip() == "failed: wait for Redis, test Redis"


async def test_strategy_and_key_work_together(client: httpx.AsyncClient) -> None:
    strategy = run(
        "strategy", "create", "--user", "New@Mail.test", "--name", "trend", PUBLIC_URL="https://bot.test/x/"
    )
    assert strategy.returncode == 0, strategy.stderr
    url = strategy.stdout.strip()
    assert url.startswith("https://bot.test/x/api/v1/webhooks/tradingview/tbw_")
    key = json.loads(run("api-key", "create", "--user", "new@mail.test", "--name", "k", "--json").stdout)[
        "api_key"
    ]
    answer = await client.post(
        url.removeprefix("https://bot.test/x"), json={"symbol": "A", "action": "close"}
    )
    assert answer.status_code == 202
    items = (await client.get("/api/v1/signals", headers={"X-API-Key": key})).json()["items"]
    assert [item["id"] for item in items] == [answer.json()["id"]]


def test_second_strategy_of_the_same_name(environment: dict[str, str]) -> None:
    arguments = ("strategy", "create", "--user", "a@mail.test", "--name", "trend")
    assert run(*arguments).returncode == 0
    again = run(*arguments)
    assert again.returncode == 1
    assert "choose another --name" in again.stderr


@pytest.mark.parametrize(
    ("user", "name"), [("nobody", "k"), ("a@mail.test", " "), ("a@mail.test", "x" * 101)]
)
def test_bad_arguments(environment: dict[str, str], user: str, name: str) -> None:
    assert run("api-key", "create", "--user", user, "--name", name).returncode == 2


def test_database_away(environment: dict[str, str]) -> None:
    url = f"postgresql://tradingbot:Xa8sdKq2@127.0.0.1:{free_port()}/tradingbot"
    result = run("api-key", "create", "--user", "a@mail.test", "--name", "k", DATABASE_URL=url)
    assert result.returncode == 1
    assert "The database does not answer" in result.stderr
    assert "Xa8sdKq2" not in result.stdout + result.stderr


def test_health_of_nothing() -> None:
    assert run("health", PORT=str(free_port())).returncode == 1


def test_tokens() -> None:
    tokens = {new_token(TokenKind.API_KEY) for _ in range(1000)}
    assert len(tokens) == 1000
    for token in tokens:
        assert is_well_formed(token, TokenKind.API_KEY)
        assert not is_well_formed(token, TokenKind.WEBHOOK)
        assert not is_well_formed(token[:-1] + ("A" if token[-1] != "A" else "B"), TokenKind.API_KEY)
    token = tokens.pop()
    assert hash_token(token, "k1") != hash_token(token, "k2")
    assert len(hash_token(token, "k1")) == 64


def test_redaction() -> None:
    token = new_token(TokenKind.WEBHOOK)
    text = redact(f"POST /api/v1/webhooks/tradingview/{token} {token} redis://u:p4ss@h:1/0")
    assert token not in text
    assert "p4ss" not in text
    assert "redis://u:***@h:1/0" in text
