"""The steps before the web server starts. `serve` goes through them, `check` shows them as a table."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import asyncpg

from tradingbot.core.address import plain_dsn
from tradingbot.core.probes import ProbeError, probe_postgresql, probe_redis, wait_for
from tradingbot.core.settings import Settings
from tradingbot.migrations.state import read_state


class StepError(Exception):
    """The step failed; the message says what to do."""


class Step(NamedTuple):
    """A step; if it is not `required`, its failure is reported and the server starts all the same."""

    name: str
    run: Callable[[], Awaitable[str]]
    required: bool = True


def startup_steps(settings: Settings, wait: float, redis_wait: float = 0) -> list[Step]:
    """Return steps one to six; the seventh is the start of the server.

    `wait` is for PostgreSQL and `redis_wait` for Redis, in seconds. Redis is not required, and so a server
    does not wait for it: alerts are taken and orders placed without it, and it is used once it is there.
    """
    postgresql, redis = partial(probe_postgresql, settings), partial(probe_redis, settings)
    return [
        Step("wait for PostgreSQL", partial(wait_for, postgresql, wait)),
        Step("wait for Redis", partial(wait_for, redis, redis_wait), required=False),
        Step("check the schema", partial(check_schema, settings), required=False),
        Step("check directories", partial(check_directories, settings)),
        Step("test PostgreSQL", postgresql),
        Step("test Redis", redis, required=False),
    ]


async def check_schema(settings: Settings) -> str:
    """Compares the schema with what this version needs; changes nothing.

    Raises:
        StepError: this version cannot live with it.
    """
    connection = await asyncpg.connect(
        plain_dsn(settings.database_url.get_secret_value()),
        timeout=settings.database_connect_timeout,
        command_timeout=settings.database_command_timeout,
    )
    try:
        state = await read_state(connection.fetchrow)
    finally:
        connection.terminate()
    if state.problem is not None:
        raise StepError(f"schema is {state.problem}")
    return f"schema at {state.current}"


async def check_directories(settings: Settings) -> str:
    """Makes the directories that are missing and sees that they can be used.

    Raises:
        StepError: naming the first that cannot.
    """
    for name, path in (
        ("LOGS_DIR", settings.logs_dir),
        ("CACHE_DIR", settings.cache_dir),
        ("METRICS_DIR", settings.metrics_dir),
    ):
        _make(name, path)
        if not os.access(path, os.W_OK | os.X_OK):
            raise StepError(f"{name}={path} is not writable for uid {os.getuid()}")
    _make("MODELS_DIR", settings.models_dir)
    if not os.access(settings.models_dir, os.R_OK | os.X_OK):
        raise StepError(f"MODELS_DIR={settings.models_dir} is not readable for uid {os.getuid()}")
    return f"{settings.logs_dir}, {settings.models_dir}, {settings.cache_dir}"


def _make(name: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StepError(f"{name}={path} cannot be made: {error.strerror}") from None


STEP_ERRORS = (StepError, ProbeError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
