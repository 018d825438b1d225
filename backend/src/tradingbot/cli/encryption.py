"""`tradingbot encryption-key status` and `re-encrypt`: the rotation of ENCRYPTION_KEY."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from tradingbot.cli.arguments import add_json
from tradingbot.core.crypto import Envelopes
from tradingbot.core.database import Database
from tradingbot.core.refusal import load
from tradingbot.core.settings import DatabaseSettings, SecuritySettings
from tradingbot.exchanges import rotation
from tradingbot.exchanges.rotation import Counts

_LABELS = {
    "current": "under ENCRYPTION_KEY",
    "old": "under ENCRYPTION_KEY_OLD",
    "re_encrypted": "re-encrypted now",
    "unreadable": "unreadable: under another key, or damaged",
}


class _Settings(DatabaseSettings, SecuritySettings):
    pass


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser(
        "status",
        help="count the stored credentials by the key that they are under",
        description="Opens every stored credential and counts them by key. Changes nothing; exit code 1 if"
        " any cannot be opened.",
    )
    add_json(status)
    status.set_defaults(run=run_status)
    again = actions.add_parser(
        "re-encrypt",
        help="put everything under ENCRYPTION_KEY that is still under ENCRYPTION_KEY_OLD",
        description="Puts under ENCRYPTION_KEY what is under ENCRYPTION_KEY_OLD, 100 accounts in each"
        " transaction: stopped, it goes on where it was when it is called again. Exit code 1 if something"
        " could not be opened; it is left as it is.",
    )
    again.add_argument("--dry-run", action="store_true", help="open everything and write nothing")
    add_json(again)
    again.set_defaults(run=run_again)


def run_status(arguments: argparse.Namespace) -> int:
    """Prints the counts."""
    return _run(arguments, rotation.count)


def run_again(arguments: argparse.Namespace) -> int:
    """Re-encrypts, and prints the counts."""
    return _run(arguments, rotation.count if arguments.dry_run else rotation.re_encrypt)


_Work = Callable[[Database, Envelopes, Callable[[int], None]], Awaitable[Counts]]


def _run(arguments: argparse.Namespace, work: _Work) -> int:
    settings = load(_Settings)
    counts = asyncio.run(_work(settings, work))
    if arguments.json:
        print(json.dumps(counts._asdict()))
    else:
        for name, count in counts._asdict().items():
            print(f"{count:>8}  {_LABELS[name]}")
    if counts.unreadable:
        print("Give the key that they were sealed with as ENCRYPTION_KEY_OLD.", file=sys.stderr)
        return 1
    if not counts.old:
        print("Nothing needs ENCRYPTION_KEY_OLD any more.", file=sys.stderr)
    return 0


async def _work(settings: _Settings, work: _Work) -> Counts:
    database = Database(settings)
    try:
        return await work(database, Envelopes.of(settings), _progress)
    finally:
        await database.close()


def _progress(accounts: int) -> None:
    print(f"{accounts} accounts", file=sys.stderr)
