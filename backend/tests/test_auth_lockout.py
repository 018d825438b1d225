"""Lock-out after failures: by account and by address, for all workers, with Redis and without."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from tests.access import EMAIL, from_address, login, make_user, sign_in
from tests.conftest import client_of
from tests.forked import run
from tests.network import free_port, proxy_to
from tests.test_webhooks import assert_problem
from tradingbot.app import create_app
from tradingbot.auth import lockout
from tradingbot.core import passwords
from tradingbot.core.settings import Settings


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here failures are counted, hundreds of them; test_auth.py has what a hash costs."""
    monkeypatch.setattr(passwords, "_MEMORY_KIB", 64)
    monkeypatch.setattr(passwords, "_ITERATIONS", 1)


@pytest.fixture(autouse=True)
async def user(settings: Settings, cheap_hashes: None) -> None:
    await make_user(settings)


def assert_locked_out(answer: httpx.Response, seconds: int = 900) -> None:
    assert_problem(answer, 429)
    assert seconds - 60 < int(answer.headers["retry-after"]) <= seconds


async def fail(client: httpx.AsyncClient, times: int, email: str = EMAIL) -> None:
    for _ in range(times):
        assert_problem(await login(client, email, "wrong password"), 401)


async def test_an_address_is_locked_out_of_an_account_in_all_workers(
    app: FastAPI, settings: Settings
) -> None:
    other = create_app(settings)
    async with (
        other.router.lifespan_context(other),
        from_address(app, "192.0.2.1") as here,
        from_address(other, "192.0.2.1") as there,
        from_address(app, "192.0.2.2") as owner,
    ):
        session = await sign_in(here)
        await fail(here, 3)
        await fail(there, 2)
        assert_locked_out(await login(here))
        assert_locked_out(await login(there, EMAIL.upper()))
        # Who is signed in stays so, and who is elsewhere is not kept out by a stranger's failures.
        assert (await here.get("/api/v1/auth/me", headers=session.headers)).status_code == 200
        await sign_in(owner)


async def fail_everywhere(app: FastAPI, times: int) -> None:
    for number in range(times // 5):
        async with from_address(app, f"192.0.2.{number + 1}") as stranger:
            await fail(stranger, 5)


async def test_many_addresses_do_not_guess_for_ever(app: FastAPI, environment: dict[str, str]) -> None:
    await fail_everywhere(app, 100)
    async with from_address(app, "198.51.100.1") as owner:
        assert_locked_out(await login(owner))
        said = await asyncio.to_thread(run, "user", "unlock", "--email", EMAIL)
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith(f"{EMAIL} may try again")
        await sign_in(owner)
    async with from_address(app, "192.0.2.1") as stranger:
        assert_problem(await login(stranger, EMAIL, "wrong password"), 401)


@pytest.mark.parametrize("with_redis", [True, False])
async def test_one_address_does_not_keep_the_owner_out(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, with_redis: bool
) -> None:
    """However often it tries: what it is refused is no attempt at the account."""
    if not with_redis:
        monkeypatch.setenv("REDIS_URL", f"redis://:Xa8sdKq2Test@127.0.0.1:{free_port()}/0")
    app = create_app(Settings())
    async with (
        app.router.lifespan_context(app),
        from_address(app, "192.0.2.1") as stranger,
        from_address(app, "198.51.100.1") as owner,
    ):
        await fail(stranger, 5)
        for _ in range(115):
            assert_locked_out(await login(stranger, EMAIL, "wrong password"))
        await sign_in(owner)
        # Nor from the other accounts that people have behind its address.
        await fail(stranger, 1, "neighbour@mail.test")


async def test_a_right_password_is_not_held_against_an_account(app: FastAPI) -> None:
    for number in range(110):
        async with from_address(app, f"192.0.2.{number + 1}") as somewhere:
            await sign_in(somewhere)


def test_nothing_to_unlock(environment: dict[str, str]) -> None:
    said = run("user", "unlock", "--email", EMAIL)
    assert (said.returncode, said.stdout) == (0, f"{EMAIL} has no failed attempts\n")


def test_unlock_without_redis(environment: dict[str, str]) -> None:
    said = run(
        "user", "unlock", "--email", EMAIL, REDIS_URL=f"redis://:Xa8sdKq2Test@127.0.0.1:{free_port()}/0"
    )
    assert said.returncode == 1
    assert "Redis at 127.0.0.1" in said.stderr
    assert "Traceback" not in said.stderr


async def test_account_that_does_not_exist_is_locked_too(client: httpx.AsyncClient) -> None:
    await fail(client, 5, "nobody@mail.test")
    assert_locked_out(await login(client, "nobody@mail.test"))
    await sign_in(client)


async def test_right_password_forgives(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await fail(client, 4)
        await sign_in(client)


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("no address", "neither", "192.0.2.2"),
    ],
)
async def test_address_is_locked(app: FastAPI, first: str, same: str, other: str) -> None:
    async with (
        from_address(app, first) as attacker,
        from_address(app, same) as neighbour,
        from_address(app, other) as stranger,
    ):
        for number in range(20):
            await fail(attacker, 1, f"user{number}@mail.test")
        assert_locked_out(await login(neighbour))
        await sign_in(stranger)


async def test_count_ends(
    environment: dict[str, str], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN_LOCKOUT_SECONDS", "100")
    app = create_app()
    async with app.router.lifespan_context(app), client_of(app) as client, Redis.from_url(redis_url) as redis:
        await fail(client, 4)
        keys = [key.decode() async for key in redis.scan_iter("*")]
        assert len(keys) == 3
        for key in keys:
            assert key.startswith("tradingbot:login:")
            assert EMAIL not in key
            assert 0 < await redis.ttl(key) <= 100
            await redis.expire(key, 50)
        await fail(client, 1)
        # The last attempt that there is starts the time anew.
        assert_locked_out(await login(client), 100)
        await redis.delete(*(key for key in keys if ":account:" in key))
        await sign_in(client)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_without_redis_a_worker_counts_by_itself(
    environment: dict[str, str], redis_url: str, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    async with proxy_to(redis_url) as proxy:
        monkeypatch.setenv("REDIS_URL", proxy.url)
        app = create_app(Settings())
        async with app.router.lifespan_context(app), client_of(app) as client:
            await sign_in(client)
            if silent:
                proxy.silence()
            else:
                await proxy.cut()
            await fail(client, 4)
            await sign_in(client)
            await fail(client, 5)
            assert_locked_out(await login(client))
            proxy.speak()
            if not silent:
                await proxy.open()
            # Redis knows nothing of this.
            await sign_in(client)


@pytest.mark.parametrize("with_redis", [True, False])
async def test_attempts_while_postgresql_is_away_do_not_count(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, with_redis: bool
) -> None:
    async with proxy_to(environment["DATABASE_URL"]) as database, proxy_to(environment["REDIS_URL"]) as redis:
        monkeypatch.setenv("DATABASE_URL", database.url)
        monkeypatch.setenv("REDIS_URL", redis.url)
        app = create_app(Settings())
        async with app.router.lifespan_context(app), client_of(app) as client:
            if not with_redis:
                await redis.cut()
            await fail(client, 3)
            await database.cut()
            for _ in range(25):
                assert_problem(await login(client), 503)
            await database.open()
            # They are not forgotten either.
            await fail(client, 2)
            assert_locked_out(await login(client))


async def test_attempts_that_nobody_has_time_for_do_not_count(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = app.state.context.passwords
    monkeypatch.setattr(passwords, "_limit", 0)
    for _ in range(25):
        assert_problem(await login(client), 503)
    monkeypatch.undo()
    await sign_in(client)


def test_local_counts_are_bounded_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "_LOCAL_COUNTERS", 3)
    counts = lockout._LocalCounts(0)
    for number in (1, 2, 3, 4):
        assert counts.add(lockout._Counter(f"k{number}", 9)).value == 1
    assert set(counts._counts) == {"k2", "k3", "k4"}
    assert counts.add(lockout._Counter("k4", 9)).value == 1
    counts.forget("k2")
    counts.take_back("k1")
    assert set(counts._counts) == {"k3", "k4"}
