"""`tradingbot status`: version, schema and queue, for whoever looks after the host.

It imports neither SQLAlchemy nor Redis: it is asked often, beside the work.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import asyncpg

from tradingbot import __version__
from tradingbot.cli.output import print_refusal
from tradingbot.core.address import Address, plain_dsn
from tradingbot.core.refusal import SettingsRefusedError, load
from tradingbot.core.settings import DatabaseSettings
from tradingbot.migrations.head import head_revision
from tradingbot.migrations.state import SchemaState, read_state

_QUEUE = """
SELECT
    count(*) AS depth,
    coalesce(round(
        extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE task = 'signal'))::numeric, 1
    ), 0)::float8 AS oldest_seconds
FROM outbox
"""
_UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Shows the version, whether it can use the schema, and what waits in the queue. Exit code 0 if the"
        " database answered, whatever it said; 1 if it did not."
    )
    # Not from `cli.arguments`, whose imports take longer than all of this.
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the state; gives 1 if the database does not answer."""
    try:
        settings = load(DatabaseSettings)
    except SettingsRefusedError as error:
        return print_refusal(error.problems)
    try:
        state, queue = asyncio.run(_ask(settings))
    except _UNREACHABLE as error:
        where = Address(settings.database_url.get_secret_value(), 5432)
        print(f"PostgreSQL at {where} does not answer: {error or type(error).__name__}", file=sys.stderr)
        return 1
    status = {
        "version": __version__,
        "schema": {
            "current": state.current,
            "head": head_revision(),
            "oldest": state.oldest,
            "ok": state.problem is None,
        },
        "queue": queue,
    }
    print(json.dumps(status) if arguments.json else "\n".join(_lines(state, queue)))
    return 0


async def _ask(settings: DatabaseSettings) -> tuple[SchemaState, dict[str, Any]]:
    connection = await asyncpg.connect(
        plain_dsn(settings.database_url.get_secret_value()),
        timeout=settings.database_connect_timeout,
        command_timeout=settings.database_command_timeout,
        server_settings={"application_name": "tradingbot status"},
    )
    try:
        state = await read_state(connection.fetchrow)
        there = await connection.fetchval("SELECT to_regclass('outbox') IS NOT NULL")
        queue = await connection.fetchrow(_QUEUE) if there else {"depth": None, "oldest_seconds": None}
        return state, dict(queue)
    finally:
        connection.terminate()


def _lines(state: SchemaState, queue: dict[str, Any]) -> Iterator[str]:
    yield f"version  {__version__}"
    yield f"schema   {state.problem or f'at {state.current}'}"
    if queue["depth"] is None:
        yield "queue    none yet"
    else:
        yield f"queue    {queue['depth']} waiting, the oldest signal for {queue['oldest_seconds']:g} s"
