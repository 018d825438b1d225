"""PostgreSQL and Redis for the tests: given by variables, or started in containers and removed afterwards."""

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg
from redis import Redis
from redis.exceptions import RedisError

REGISTRY = os.environ.get("TEST_REGISTRY", "127.0.0.1:5000/library")
POSTGRES_IMAGE = f"{REGISTRY}/postgres:15-alpine"
REDIS_IMAGE = f"{REGISTRY}/redis:7-alpine"
START_SECONDS = 60
USER = "tradingbot"


@contextmanager
def postgresql() -> Iterator[str]:
    """Gives the URL of a server on which we may make databases."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    password = secrets.token_hex(12)
    variables = {"POSTGRES_USER": "tradingbot", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "tradingbot"}
    # As SCRAM is slow on purpose, and each test opens some connections.
    variables["POSTGRES_HOST_AUTH_METHOD"] = "md5"
    settings = ("listen_addresses=*", "fsync=off", "max_connections=200", "password_encryption=md5")
    command = ("postgres", *(part for setting in settings for part in ("-c", setting)))
    with _container("postgres", POSTGRES_IMAGE, 5432, command, variables) as port:
        url = f"postgresql://tradingbot:{password}@127.0.0.1:{port}/tradingbot"
        _wait_until(lambda: _postgresql_answers(url))
        yield url


class RestartablePostgresql:
    """A server of its own, on a port that stays the same."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self._name = name

    def restart(self, patience: int) -> None:
        """Stops and starts it; 0 seconds of patience kill it. Returns when it answers."""
        _docker("restart", "--time", str(patience), self._name)
        _wait_until(lambda: _postgresql_answers(self.url))


@contextmanager
def restartable_postgresql(port: int) -> Iterator[RestartablePostgresql]:
    """Gives a server that writes to its disk, as a test that restarts it wants."""
    name, password = f"tradingbot-backend-test-restart-{secrets.token_hex(4)}", secrets.token_hex(12)
    variables = (f"POSTGRES_USER={USER}", f"POSTGRES_PASSWORD={password}", f"POSTGRES_DB={USER}")
    options = [part for variable in variables for part in ("--env", variable)]
    publish = ("--publish", f"127.0.0.1:{port}:5432")
    _docker("run", "--detach", "--name", name, *publish, *options, POSTGRES_IMAGE)
    try:
        server = RestartablePostgresql(f"postgresql://{USER}:{password}@127.0.0.1:{port}/{USER}", name)
        _wait_until(lambda: _postgresql_answers(server.url))
        yield server
    finally:
        _docker("rm", "--force", "--volumes", name)


@contextmanager
def redis() -> Iterator[str]:
    """Gives the URL of a server."""
    given = os.environ.get("TEST_REDIS_URL")
    if given and "PYTEST_XDIST_WORKER" in os.environ:
        raise RuntimeError(
            "TEST_REDIS_URL is one server, and tests that run side by side would hear each other on its"
            " channels: leave out -n, or leave TEST_REDIS_URL unset, so that each process starts a server"
        )
    if given:
        yield given
        return
    password = secrets.token_hex(12)
    command = ("redis-server", "--requirepass", password)
    with _container("redis", REDIS_IMAGE, 6379, command, {}) as port:
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        _wait_until(lambda: _redis_answers(url))
        yield url


@contextmanager
def _container(
    name: str, image: str, port: int, command: tuple[str, ...], variables: dict[str, str]
) -> Iterator[int]:
    full_name = f"tradingbot-backend-test-{name}-{secrets.token_hex(4)}"
    environment = [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
    publish = ("--publish", f"127.0.0.1::{port}")
    _docker("run", "--detach", "--rm", "--name", full_name, *publish, *environment, image, *command)
    try:
        yield int(_docker("port", full_name, f"{port}/tcp").splitlines()[0].rpartition(":")[2])
    finally:
        _docker("rm", "--force", "--volumes", full_name)


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _wait_until(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if time.monotonic() > deadline:
            raise TimeoutError("a test server did not start")
        time.sleep(0.2)


def _postgresql_answers(url: str) -> bool:
    async def connect() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    return asyncio.run(connect())


def _redis_answers(url: str) -> bool:
    with Redis.from_url(url, socket_timeout=2) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
