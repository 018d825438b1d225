"""Settings: where they come from, and which are refused."""

import base64
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url

from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.secret_cases import CASES, GOOD, PASSWORDS
from tradingbot.core import secret_policy
from tradingbot.core.refusal import SettingsRefusedError, load
from tradingbot.core.settings import Settings

WEAK = [
    ("SECRET_KEY", "changeme"),
    ("SECRET_KEY", "changethis-changethis-changethis-changethis"),
    ("SECRET_KEY", "your-secret-key-goes-here-0123456789abcdef"),
    ("SECRET_KEY", "this-is-an-example-0123456789-abcdefghijkl"),
    ("SECRET_KEY", "a" * 64),
    ("SECRET_KEY", "Zk3short"),
    ("WEBHOOK_SECRET", "password"),
    ("WEBHOOK_SECRET", "Zk3short"),
    ("WEBHOOK_SECRET", "${WEBHOOK_SECRET}-0123456789"),
    ("ENCRYPTION_KEY", "not base64 at all"),
    pytest.param("ENCRYPTION_KEY", base64.b64encode(os.urandom(16)).decode(), id="16 random bytes"),
    ("ENCRYPTION_KEY", base64.b64encode(bytes(32)).decode()),
    ("DATABASE_URL", "postgresql://tradingbot:changeme@postgres:5432/tradingbot"),
    ("DATABASE_URL", "postgresql://tradingbot:tradingbot@postgres:5432/tradingbot"),
    ("DATABASE_URL", "postgresql://tradingbot@postgres:5432/tradingbot"),
    ("DATABASE_URL", "mysql://tradingbot:Xa8sdKq2@postgres/tradingbot"),
    ("DATABASE_URL", "postgresql://tradingbot:Xa8sdKq2@postgres:port/tradingbot"),
    ("REDIS_URL", "redis://redis:6379/0"),
    ("REDIS_URL", "redis://:password@redis:6379/0"),
    ("SENTRY_DSN", "https://sentry.mail.test/1"),
    ("SENTRY_DSN", "https://0a1b2c3d@sentry.mail.test/project"),
]


@pytest.mark.parametrize(("name", "value"), WEAK)
def test_weak_secret_is_refused_by_name_and_never_shown(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsRefusedError) as refused:
        load(Settings)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{name} ")
    assert value not in problem
    assert "python3 -c" in problem or "of the form" in problem


@pytest.mark.parametrize(
    ("name", "value", "why"), [(name, value, why) for name in CASES for value, why in CASES[name]]
)
def test_settings_and_preflight_say_the_same_of_a_secret(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str | None
) -> None:
    """The collection's tests hold the preflight to the same cases."""
    assert secret_policy.SETTINGS[name].problem(value) == why
    directory = Path(environment["SECRETS_DIR"])
    directory.mkdir()
    (directory / name).write_bytes(value.encode())
    monkeypatch.delenv(name.upper(), raising=False)
    read = value.strip()
    if secret_policy.SETTINGS[name].problem(read) is None:
        assert getattr(load(Settings), name).get_secret_value() == read
    else:
        with pytest.raises(SettingsRefusedError) as refused:
            load(Settings)
        (problem,) = refused.value.problems
        assert problem.startswith(f"{name.upper()} ")
        assert read != value or str(why) in problem
        assert value not in problem


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(0, len(GOOD)))
def test_a_fit_secret_is_read_from_its_file_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, some: str, place: int
) -> None:
    value = GOOD[:place] + some + GOOD[place:]
    path = tmp_path_factory.mktemp("secrets") / "secret_key"
    path.write_bytes(value.encode())
    if secret_policy.password_problem(value) is None:
        assert path.read_text().strip() == value


@pytest.mark.parametrize("password", [value for value, why in PASSWORDS if why is None])
def test_a_fit_password_arrives_from_its_address(password: str) -> None:
    quoted = quote(password, safe="")
    database = f"postgresql://tradingbot:{quoted}@postgres:5432/tradingbot"
    redis = f"redis://tradingbot:{quoted}@redis:6379/0"
    assert secret_policy.database_url_problem(database) is None
    assert secret_policy.redis_url_problem(redis) is None
    assert make_url(database).password == password
    assert parse_url(redis)["password"] == password


def test_an_optional_secret_may_be_empty(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(environment["SECRETS_DIR"])
    directory.mkdir()
    for name, rule in secret_policy.SETTINGS.items():
        if rule.is_optional:
            (directory / name).write_text("\n")
    settings = load(Settings)
    assert (settings.encryption_key_old, settings.notify_urls, settings.sentry_dsn) == (None, None, None)


def test_all_problems_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "WEBHOOK_SECRET", "ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsRefusedError) as refused:
        load(Settings)
    assert len(refused.value.problems) == 5
    assert "DATABASE_URL is missing" in str(refused.value)


def test_reused_secret_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET_KEY)
    with pytest.raises(SettingsRefusedError, match="must differ"):
        load(Settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "http://bot.mail.test"),
        ("PUBLIC_URL", ""),
        ("CORS_ORIGINS", "*"),
        ("ENVIRONMENT", "prod"),
    ],
)
def test_production_refuses_plain_defaults(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("PUBLIC_URL", "https://bot.mail.test")
    load(Settings)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsRefusedError, match=name):
        load(Settings)


def test_secret_files_and_variables(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(environment["SECRETS_DIR"])
    directory.mkdir()
    (directory / "secret_key").write_text("fromAFile9xQ2vL5xR7tW1zC4bN6hS0dGpK\n")
    (directory / "encryption_key").write_text(ENCRYPTION_KEY + "\n")
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("ENCRYPTION_KEY", "")
    settings = load(Settings)
    assert settings.secret_key.get_secret_value() == "fromAFile9xQ2vL5xR7tW1zC4bN6hS0dGpK"
    assert settings.encryption_key.get_secret_value() == ENCRYPTION_KEY
    monkeypatch.setenv("SECRET_KEY", SECRET_KEY)
    assert load(Settings).secret_key.get_secret_value() == SECRET_KEY


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("https://a.test", ["https://a.test"]),
        ("https://a.test, http://b.test:8080/", ["https://a.test", "http://b.test:8080"]),
        ('["https://a.test"]', ["https://a.test"]),
        ("*", ["*"]),
    ],
)
def test_cors_origins(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", value)
    assert load(Settings).cors_origins == expected


@pytest.mark.parametrize("value", ["a.test", "[1", '["ftp://a.test"]', "https://a.test/path"])
def test_bad_cors_origins(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CORS_ORIGINS", value)
    with pytest.raises(SettingsRefusedError, match="CORS_ORIGINS"):
        load(Settings)


def test_binance_testnet_is_on_unless_switched_off(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(Settings).binance_testnet is True
    monkeypatch.setenv("BINANCE_TESTNET", "false")
    assert load(Settings).binance_testnet is False


@pytest.mark.parametrize(
    ("environment_name", "docs", "expected"),
    [
        ("production", "", False),
        ("production", "true", True),
        ("development", "", True),
        ("development", "false", False),
    ],
)
def test_docs(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    environment_name: str,
    docs: str,
    expected: bool,
) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment_name)
    monkeypatch.setenv("PUBLIC_URL", "https://bot.mail.test")
    monkeypatch.setenv("DOCS_ENABLED", docs)
    assert load(Settings).serves_docs is expected


def test_printed_settings_hold_no_secret(settings: Settings, environment: dict[str, str]) -> None:
    for name in ("SECRET_KEY", "WEBHOOK_SECRET", "ENCRYPTION_KEY", "DATABASE_URL"):
        assert environment[name] not in repr(settings)
