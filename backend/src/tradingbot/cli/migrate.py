"""`tradingbot migrate`: brings the schema to where this version needs it."""

import argparse
import asyncio
import json
import re
import sys

from sqlalchemy.exc import DBAPIError

from tradingbot.core.probes import probe_postgresql, wait_for
from tradingbot.core.refusal import load
from tradingbot.migrations.head import head_revision
from tradingbot.migrations.plan import NotShownError, plan
from tradingbot.migrations.runner import BASE, MigrationRefusedError, MigrationSettings, migrate, state_of

_NOT_THE_OWNER = "42501"  # insufficient_privilege
_REVISION = re.compile(rf"^(\d{{4}}|{BASE})$")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Brings the schema to head in one transaction, one process at a time. A schema that a later version"
        " has migrated is left as it is, if this version can live with it."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check",
        action="store_true",
        help="change nothing; exit code 1 if this version cannot use the schema",
    )
    what.add_argument(
        "--plan", action="store_true", help="change nothing; print JSON with the SQL of what would be done"
    )
    what.add_argument(
        "--downgrade", metavar="REVISION", type=revision, help="go back to a revision, or to 'base'"
    )
    parser.add_argument(
        "--wait", type=float, default=30, metavar="SECONDS", help="for PostgreSQL (default 30)"
    )
    parser.set_defaults(run=run)


def revision(text: str) -> str:
    """Reads a revision from the command line."""
    if not _REVISION.match(text):
        raise argparse.ArgumentTypeError("a revision is four digits, or 'base'")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Migrates, or only compares or shows; gives 1 on a failure or difference."""
    settings = load(MigrationSettings)
    try:
        return asyncio.run(_run(settings, arguments))
    except DBAPIError as error:
        print(f"migration failed, the schema is unchanged: {error.orig}", file=sys.stderr)
        for note in getattr(error, "__notes__", []):
            print(note, file=sys.stderr)
        if getattr(error.orig, "sqlstate", None) == _NOT_THE_OWNER:
            print(
                "The role in DATABASE_URL does not own the schema. On a host, `site.yml` or a deploy does,"
                " with the role that owns it.",
                file=sys.stderr,
            )
        return 1
    except (MigrationRefusedError, NotShownError) as error:
        print(error, file=sys.stderr)
        return 1


async def _run(settings: MigrationSettings, arguments: argparse.Namespace) -> int:
    await wait_for(lambda: probe_postgresql(settings), arguments.wait)
    if arguments.check:
        return await _check(settings)
    if arguments.plan:
        print(json.dumps(plan(await state_of(settings))))
        return 0
    print(await migrate(settings, arguments.downgrade))
    return 0


async def _check(settings: MigrationSettings) -> int:
    state, head = await state_of(settings), head_revision()
    if state.problem is not None:
        print(f"schema is {state.problem}")
        return 1
    if state.is_newer:
        print(f"schema at {state.current}, later than head {head}, which can live with it")
    else:
        print(f"schema already at head {head}")
    return 0
