"""`tradingbot migrate`: brings the schema to where this version needs it."""

import argparse
import asyncio
import re
import sys

from sqlalchemy.exc import DBAPIError

from tradingbot.core.probes import probe_postgresql, wait_for
from tradingbot.core.refusal import load
from tradingbot.migrations.head import head_revision
from tradingbot.migrations.runner import BASE, MigrationSettings, migrate, revision_of

_REVISION = re.compile(rf"^(\d{{4}}|{BASE})$")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = "Brings the schema to head in one transaction, one process at a time."
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if not at head")
    parser.add_argument(
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
    """Migrates, or with --check only compares; gives 1 on a failure or difference."""
    settings = load(MigrationSettings)
    try:
        return asyncio.run(_run(settings, arguments))
    except DBAPIError as error:
        print(f"migration failed, the schema is unchanged: {error.orig}", file=sys.stderr)
        return 1


async def _run(settings: MigrationSettings, arguments: argparse.Namespace) -> int:
    await wait_for(lambda: probe_postgresql(settings), arguments.wait)
    if arguments.check:
        current, head = await revision_of(settings), head_revision()
        if current == head:
            print(f"schema already at head {head}")
            return 0
        print(f"schema at {current or BASE}, head is {head}")
        return 1
    print(await migrate(settings, arguments.downgrade))
    return 0
