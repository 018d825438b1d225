"""`tradingbot strategy create`."""

import argparse
import asyncio
import sys

from tradingbot.cli.arguments import add_json, add_owner, name
from tradingbot.cli.output import print_once
from tradingbot.core.database import Database
from tradingbot.core.errors import ConflictError
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings
from tradingbot.strategies import service as strategies
from tradingbot.users import service as users


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="create a strategy, and print its webhook address once (PUBLIC_URL is its beginning)",
        description="Creates a strategy, and prints its webhook address once (PUBLIC_URL is its beginning)."
        " A user who does not exist yet is created too.",
    )
    add_owner(create)
    create.add_argument("--name", required=True, type=name, help="how you will recognise it")
    add_json(create)
    create.set_defaults(run=run_create)


def run_create(arguments: argparse.Namespace) -> int:
    """Makes the strategy and prints its address."""
    settings = load(Settings)
    try:
        token = asyncio.run(_create(settings, arguments))
    except ConflictError:
        print(
            f"{arguments.user} has a strategy named {arguments.name} already; choose another --name",
            file=sys.stderr,
        )
        return 1
    url = f"{settings.public_url}/api/v1/webhooks/tradingview/{token}"
    print_once(arguments.json, "webhook_url", url, user=arguments.user, name=arguments.name)
    return 0


async def _create(settings: Settings, arguments: argparse.Namespace) -> str:
    database = Database(settings)
    try:
        async with database.transaction() as session:
            user = await users.get_or_create(session, arguments.user)
            return await strategies.create(
                session, user, arguments.name, settings.secret_key.get_secret_value()
            )
    finally:
        await database.close()
