"""Signing in, passwords, registration, and what access tokens have to be like."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from argon2 import PasswordHasher, extract_parameters
from fastapi import FastAPI
from sqlalchemy import event, text

from tests.access import EMAIL, PASSWORD, from_address, login, make_user, refresh, sign_in
from tests.conftest import Account, client_of, execute
from tests.network import proxy_to
from tests.test_webhooks import assert_problem
from tradingbot.app import create_app
from tradingbot.auth import access_tokens, service
from tradingbot.auth.access_tokens import Claims
from tradingbot.auth.client import Client
from tradingbot.core.errors import ConflictError, UnavailableError
from tradingbot.core.models import utc_now
from tradingbot.core.passwords import Passwords
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import derive_key
from tradingbot.users import repository as users
from tradingbot.users.service import check_password, normalise_email

ME = "/api/v1/auth/me"


@pytest.fixture
async def user(settings: Settings) -> UUID:
    return await make_user(settings)


async def test_sign_in_and_use(client: httpx.AsyncClient, user: UUID) -> None:
    answer = await login(client, EMAIL.upper())
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 900
    me = await client.get(ME, headers={"Authorization": f"bearer {tokens['access_token']}"})
    assert me.json() | {"created_at": None} == {
        "id": str(user),
        "email": EMAIL,
        "is_admin": False,
        "created_at": None,
        "scopes": ["read", "trade"],
        "session_id": tokens["session_id"],
    }


async def test_wrong_password_and_unknown_user_look_the_same(client: httpx.AsyncClient, user: UUID) -> None:
    answers = [await login(client, EMAIL, "wrong password"), await login(client, "nobody@mail.test")]
    bodies = [assert_problem(answer, 401) | {"request_id": None} for answer in answers]
    assert bodies[0] == bodies[1]
    for answer in answers:
        assert answer.headers["www-authenticate"].startswith("Bearer")


CLOSED = "UPDATE users SET is_active = false"


@pytest.mark.parametrize("statement", [CLOSED, "UPDATE users SET password_hash = NULL"])
async def test_closed_accounts_and_accounts_without_password(
    client: httpx.AsyncClient, user: UUID, database_url: str, statement: str
) -> None:
    session = await sign_in(client)
    await asyncio.to_thread(execute, database_url, statement)
    assert_problem(await login(client), 401)
    if statement == CLOSED:
        assert_problem(await client.get(ME, headers=session.headers), 401)
        assert_problem(await refresh(client, session.refresh_token), 401)


@pytest.mark.parametrize(
    "body",
    [
        {"email": "not an address", "password": PASSWORD},
        {"email": EMAIL + "\n", "password": PASSWORD},
        {"email": "trädér@mail.test", "password": PASSWORD},
        {"email": EMAIL, "password": ""},
        {"email": EMAIL, "password": "x" * 257},
        {"email": EMAIL},
        {"email": EMAIL, "password": PASSWORD, "remember": True},
        {"email": [EMAIL], "password": {"$ne": ""}},
    ],
)
async def test_bodies_that_are_not_valid(client: httpx.AsyncClient, user: UUID, body: Any) -> None:
    answer = await client.post("/api/v1/auth/login", json=body)
    assert_problem(answer, 422)
    assert PASSWORD not in answer.text


async def test_half_a_surrogate_pair(client: httpx.AsyncClient, user: UUID) -> None:
    headers = {"Content-Type": "application/json"}
    for path, body, status in (
        ("login", b'{"email": "a@b.test", "password": "\\ud800 and twelve more"}', 401),
        ("login", b'{"email": "\\ud800@b.test", "password": "long enough it is"}', 422),
        ("login", b'{"email": "a\\u0000@b.test", "password": "long enough it is"}', 422),
        ("refresh", b'{"refresh_token": "\\ud800"}', 401),
    ):
        answer = await client.post(f"/api/v1/auth/{path}", content=body, headers=headers)
        assert_problem(answer, status)


def forged(settings: Settings, claims: Claims, **changes: Any) -> str:
    """A token like ours, but for the changes; None takes a claim away, `key`, `algorithm` sign otherwise."""
    key = changes.pop("key", derive_key(settings.secret_key.get_secret_value(), "access token"))
    algorithm = changes.pop("algorithm", "HS256")
    now = utc_now()
    payload = {
        "iss": "tradingbot",
        "aud": "tradingbot-api",
        "sub": str(claims.user_id),
        "sid": str(claims.session_id),
        "iat": now,
        "exp": now + timedelta(minutes=1),
    } | changes
    given = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(given, key, algorithm)


FORGERIES: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "somebody"},
    "another audience": {"aud": "somebody"},
    "over": {"iat": utc_now() - timedelta(hours=1), "exp": utc_now() - timedelta(minutes=1)},
    "from the future": {"iat": utc_now() + timedelta(hours=1), "exp": utc_now() + timedelta(hours=2)},
    "no end": {"exp": None},
    "no session": {"sid": None},
    "no user": {"sub": None},
    "another session": {"sid": str(uuid4())},
    "another user": {"sub": str(uuid4())},
    "no uuid": {"sid": "1"},
    "a number": {"sid": 1},
    "another algorithm": {"algorithm": "HS512"},
    "no signature": {"algorithm": "none", "key": None},
    "another key": {"key": b"k" * 32},
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("name", FORGERIES)
async def test_forged_access_tokens(
    client: httpx.AsyncClient, user: UUID, settings: Settings, name: str
) -> None:
    session = await sign_in(client)
    claims = Claims(user, UUID(session.session_id))
    genuine = forged(settings, claims)
    assert (await client.get(ME, headers={"Authorization": f"Bearer {genuine}"})).status_code == 200
    token = forged(settings, claims, **FORGERIES[name])
    answer = await client.get(ME, headers={"Authorization": f"Bearer {token}"})
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"]


async def test_secret_key_itself_signs_nothing(
    client: httpx.AsyncClient, user: UUID, settings: Settings
) -> None:
    session = await sign_in(client)
    key = settings.secret_key.get_secret_value()
    token = forged(settings, Claims(user, UUID(session.session_id)), key=key)
    assert_problem(await client.get(ME, headers={"Authorization": f"Bearer {token}"}), 401)


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer x.y.z", "Bearer ä", "Basic dTpw", "x" * 9000])
async def test_headers_without_a_token(client: httpx.AsyncClient, user: UUID, value: str) -> None:
    answer = await client.get(ME, headers=[(b"Authorization", value.encode())])
    assert_problem(answer, 401)


async def test_key_works_beside_the_basic_authorization_of_a_proxy(
    client: httpx.AsyncClient, account: Account
) -> None:
    answer = await client.get(ME, headers=account.headers | {"Authorization": "Basic dTpw"})
    assert answer.status_code == 200
    assert answer.json()["session_id"] is None


async def test_session_ends_when_it_is_old(client: httpx.AsyncClient, user: UUID, database_url: str) -> None:
    session = await sign_in(client)
    await asyncio.to_thread(execute, database_url, "UPDATE sessions SET expires_at = now()")
    assert_problem(await client.get(ME, headers=session.headers), 401)
    assert_problem(await refresh(client, session.refresh_token), 401)
    await sign_in(client)
    # The one that is over was removed by the way.
    listed = await client.get("/api/v1/auth/sessions", headers=(await sign_in(client)).headers)
    assert session.session_id not in listed.text


async def test_authentication_is_one_query(
    client: httpx.AsyncClient, app: FastAPI, user: UUID, account: Account
) -> None:
    session = await sign_in(client)
    await client.get(ME, headers=account.headers)
    engine = app.state.context.database.engine.sync_engine
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    for headers in (session.headers, account.headers):
        statements.clear()
        assert (await client.get(ME, headers=headers)).status_code == 200
        authentication, own = statements
        assert ("sessions" if "Authorization" in headers else "api_keys") in authentication
        assert own.count("FROM users") == 1


async def stored_hash(app: FastAPI) -> str:
    async with app.state.context.database.single() as session:
        return str(await session.scalar(text("SELECT password_hash FROM users")))


async def test_password_at_another_cost_is_hashed_again(
    client: httpx.AsyncClient, app: FastAPI, user: UUID
) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    async with app.state.context.database.transaction() as session:
        await users.change(session, EMAIL, password_hash=weak)
    await sign_in(client)
    assert (await stored_hash(app)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await sign_in(client)


async def test_two_sign_ins_at_once_hash_again_once(
    client: httpx.AsyncClient, app: FastAPI, user: UUID
) -> None:
    database = app.state.context.database
    weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    async with database.transaction() as session:
        await users.change(session, EMAIL, password_hash=weak)
    async with database.transaction() as blocker:
        await blocker.execute(text("SELECT 1 FROM users FOR UPDATE"))
        tasks = [asyncio.create_task(login(client)) for _ in range(2)]
        # Both have found the password right, and wait for the row.
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        async with asyncio.timeout(30):
            while (await blocker.execute(waiting)).scalar_one() < 2:
                await asyncio.sleep(0.02)
                await blocker.execute(text("SELECT pg_stat_clear_snapshot()"))
    assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200, 200]
    assert await stored_hash(app) != weak


async def test_password_changes_and_other_sessions_end(client: httpx.AsyncClient, user: UUID) -> None:
    here, there = await sign_in(client), await sign_in(client)
    body = {"current_password": PASSWORD, "new_password": "another good password"}
    answer = await client.post("/api/v1/auth/password", json=body, headers=here.headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get(ME, headers=here.headers)).status_code == 200
    assert_problem(await client.get(ME, headers=there.headers), 401)
    assert_problem(await refresh(client, there.refresh_token), 401)
    assert (await refresh(client, here.refresh_token)).status_code == 200
    assert_problem(await login(client), 401)
    await sign_in(client, password="another good password")


@pytest.mark.parametrize(
    ("current", "new", "field"),
    [
        ("wrong", "another good password", "body.current_password"),
        (PASSWORD, "elevenchars", "body.new_password"),
        (PASSWORD, "x" * 257, "body.new_password"),
        (PASSWORD, EMAIL.title(), "body.new_password"),
        (PASSWORD, "abababababab", "body.new_password"),
    ],
)
async def test_passwords_that_are_refused(
    client: httpx.AsyncClient, user: UUID, current: str, new: str, field: str
) -> None:
    session = await sign_in(client)
    body = {"current_password": current, "new_password": new}
    answer = await client.post("/api/v1/auth/password", json=body, headers=session.headers)
    assert [error["field"] for error in assert_problem(answer, 422)["errors"]] == [field]
    assert new not in answer.text
    await sign_in(client)


async def test_current_password_cannot_be_guessed_with_a_stolen_token(
    client: httpx.AsyncClient, user: UUID
) -> None:
    session = await sign_in(client)
    body = {"current_password": "wrong", "new_password": "another good password"}
    statuses = [
        (await client.post("/api/v1/auth/password", json=body, headers=session.headers)).status_code
        for _ in range(6)
    ]
    assert statuses == [422] * 5 + [429]


async def test_sign_in_that_overlaps_a_change_of_password_fails(
    app: FastAPI, user: UUID, settings: Settings
) -> None:
    context, client = app.state.context, Client("192.0.2.1", None)
    verified = await service.verify_password(context, EMAIL, PASSWORD, client)
    assert verified is not None
    await make_user(settings, EMAIL, "another good password")
    async with context.database.transaction() as session:
        assert await service.open_session(session, settings, verified, client) is None
    new_hash = await context.passwords.hash("a third good password")
    with pytest.raises(ConflictError):
        async with context.database.transaction() as session:
            await service.change_password(session, verified, new_hash, None)


async def test_registration_is_off(client: httpx.AsyncClient) -> None:
    body = {"email": "new@mail.test", "password": PASSWORD}
    assert_problem(await client.post("/api/v1/auth/register", json=body), 403)
    assert_problem(await login(client, "new@mail.test"), 401)


async def test_a_common_password_is_refused_when_it_is_set_and_not_at_sign_in(
    client: httpx.AsyncClient, settings: Settings, user: UUID
) -> None:
    common = "password1234"
    body = {"current_password": PASSWORD, "new_password": common}
    headers = (await sign_in(client)).headers
    answer = await client.post("/api/v1/auth/password", json=body, headers=headers)
    (error,) = assert_problem(answer, 422)["errors"]
    assert error["field"] == "body.new_password"
    assert "four words" in error["message"]
    assert common not in answer.text
    await make_user(settings, "before@mail.test", common)
    await sign_in(client, "before@mail.test", common)


async def test_registration_does_not_tell_who_is_there(
    environment: dict[str, str], user: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRATION_ENABLED", "true")
    app = create_app()
    async with app.router.lifespan_context(app), client_of(app) as client:
        answers = [
            await client.post("/api/v1/auth/register", json={"email": email, "password": "a new password"})
            for email in ("New@mail.test", EMAIL)
        ]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].content == answers[1].content
        await sign_in(client, "new@mail.test", "a new password")
        await sign_in(client)
        assert_problem(await login(client, EMAIL, "a new password"), 401)
        weak = {"email": "mallory.m@mail.test", "password": "Mallory.M@mail.test"}
        assert_problem(await client.post("/api/v1/auth/register", json=weak), 422)
        body = {"email": "new@mail.test", "password": PASSWORD}
        answers = [await client.post("/api/v1/auth/register", json=body) for _ in range(18)]
        assert [answer.status_code for answer in answers] == [202] * 17 + [429]
        async with from_address(app, "192.0.2.1") as elsewhere:
            assert (await elsewhere.post("/api/v1/auth/register", json=body)).status_code == 202


async def test_database_away(user: UUID, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy_to(database_url) as proxy:
        monkeypatch.setenv("DATABASE_URL", proxy.url)
        app = create_app(Settings())
        async with app.router.lifespan_context(app), client_of(app) as client:
            session = await sign_in(client)
            await proxy.cut()
            answers = [
                await client.get(ME, headers=session.headers),
                await login(client),
                await refresh(client, session.refresh_token),
                await client.post("/api/v1/auth/logout", headers=session.headers),
            ]
            for answer in answers:
                assert_problem(answer, 503)
                assert int(answer.headers["retry-after"]) > 0
            await proxy.open()
            assert (await client.get(ME, headers=session.headers)).status_code == 200
            assert (await refresh(client, session.refresh_token)).status_code == 200


async def test_hashes() -> None:
    passwords = Passwords()
    stored = await passwords.hash("ﬁne long password")
    parameters = extract_parameters(stored)
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19456, 2, 1)
    assert await passwords.verify("fine long password", stored) == (True, None)
    assert not (await passwords.verify("Fine long password", stored)).right
    # For nobody the work is that of a real hash, and no password is right.
    assert extract_parameters(passwords._nobody) == parameters
    assert await passwords.verify("fine long password", None) == (False, None)
    passwords.close()


async def test_no_more_passwords_wait_than_there_may() -> None:
    passwords = Passwords(at_once=1, waiting=1)
    results = await asyncio.gather(*(passwords.hash("x" * 12) for _ in range(4)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, UnavailableError)]
    assert len(refused) == 2
    assert await passwords.hash("x" * 12)
    passwords.close()


@pytest.mark.parametrize(
    "password",
    [
        "a" * 11,
        "trader@mail.test",
        " Trader@Mail.test ",
        "aaaaaaaaaaaa",
        "password1234",
        "Password1234!",
        "p@ssw0rdp@ssw0rd",
        "123456789012",
        "qwertyuiop123",
        "letmein123456",
        "trader123456",
        "tradingbot2026",
        "iloveyou" * 32,
    ],
)
def test_weak_passwords(password: str) -> None:
    with pytest.raises(ValueError, match="a password"):
        check_password(password, EMAIL)


@pytest.mark.parametrize(
    "password",
    [
        "four words in a row",
        "q7Zp2Lw9Xk4r",
        "mein grünes fahrrad",
        "пять слов подряд",
        "\ud800 half a surrogate pair",
        "4@8({[<369!1|0$5+7%2z" * 12,
    ],
)
def test_passwords_that_may_be_used(password: str) -> None:
    check_password(password, EMAIL)


def test_name_before_the_at_sign_is_no_password() -> None:
    with pytest.raises(ValueError, match="not the e-mail address"):
        check_password("Long.Name.Here", "long.name.here@mail.test")
    check_password("long.name.here and more", "long.name.here@mail.test")


@pytest.mark.parametrize(
    "email", ["a", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "ä@b", f"{'a' * 65}@b", "a@" + "b" * 190]
)
def test_no_e_mail_addresses(email: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalise_email(email)


def test_clock_may_be_set_back_a_little(settings: Settings) -> None:
    claims = Claims(uuid4(), uuid4())
    for ahead, good in ((3, True), (60, False)):
        token = access_tokens.issue(settings, claims, utc_now() + timedelta(seconds=ahead))
        assert (access_tokens.read(settings, token) == claims) is good
