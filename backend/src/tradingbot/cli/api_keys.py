"""`tradingbot api-key create`."""

import argparse
import asyncio

from tradingbot.api_keys import service as api_keys
from tradingbot.cli.arguments import add_json, add_owner, name
from tradingbot.cli.output import print_once
from tradingbot.core.database import Database
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings
from tradingbot.users import service as users


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="create an API key, and print it once",
        description="Creates an API key, and prints it once. A user who does not exist yet is created too.",
    )
    add_owner(create)
    create.add_argument("--name", required=True, type=name, help="how you will recognise it")
    add_json(create)
    create.set_defaults(run=run_create)


def run_create(arguments: argparse.Namespace) -> int:
    """Makes the key and prints it."""
    key = asyncio.run(_create(load(Settings), arguments))
    print_once(arguments.json, "api_key", key, user=arguments.user, name=arguments.name)
    return 0


async def _create(settings: Settings, arguments: argparse.Namespace) -> str:
    database = Database(settings)
    try:
        async with database.transaction() as session:
            user = await users.get_or_create(session, arguments.user)
            _, key = await api_keys.create(
                session, user.id, arguments.name, settings.secret_key.get_secret_value()
            )
            return key
    finally:
        await database.close()
