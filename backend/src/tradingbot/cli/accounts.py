"""`tradingbot strategy create` and `tradingbot api-key create`."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.api_keys import service as api_keys
from tradingbot.core.database import Database
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings
from tradingbot.strategies import service as strategies
from tradingbot.users import service as users
from tradingbot.users.models import User

_CREATORS: dict[str, Callable[[AsyncSession, User, str, str], Awaitable[str]]] = {
    "strategy": strategies.create,
    "api-key": api_keys.create,
}


def name(text: str) -> str:
    """Reads a name from the command line."""
    stripped = text.strip()
    if not stripped or len(stripped) > 100 or not stripped.isprintable():
        raise argparse.ArgumentTypeError("a name has 1 to 100 printable characters")
    return stripped


def email(text: str) -> str:
    """Reads an e-mail address from the command line."""
    try:
        return users.normalise_email(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Makes the strategy or key, and prints once what cannot be seen again."""
    settings = load(Settings)
    try:
        token = asyncio.run(_create(settings, arguments))
    except strategies.DuplicateStrategyError as error:
        print(
            f"{arguments.user} has a strategy named {error} already; choose another --name", file=sys.stderr
        )
        return 1
    label, value = "api_key", token
    if arguments.command == "strategy":
        label, value = "webhook_url", f"{settings.public_url}/api/v1/webhooks/tradingview/{token}"
    if arguments.json:
        print(json.dumps({"user": arguments.user, "name": arguments.name, label: value}))
        return 0
    print(value)
    print("Keep it: it is stored as a hash and cannot be shown again.", file=sys.stderr)
    return 0


async def _create(settings: Settings, arguments: argparse.Namespace) -> str:
    database = Database(settings)
    try:
        async with database.transaction() as session:
            user = await users.get_or_create(session, arguments.user)
            create = _CREATORS[arguments.command]
            return await create(session, user, arguments.name, settings.secret_key.get_secret_value())
    finally:
        await database.close()
