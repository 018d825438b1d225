"""`tradingbot api-key`: makes, lists and revokes API keys."""

import argparse
import sys
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.api_keys import repository
from tradingbot.api_keys import service as api_keys
from tradingbot.api_keys.models import ApiKey
from tradingbot.api_keys.schemas import MAX_DAYS
from tradingbot.auth.principal import Scope
from tradingbot.cli.arguments import add_json, add_owner, name
from tradingbot.cli.database import in_transaction
from tradingbot.cli.output import print_once, print_rows
from tradingbot.core.models import utc_now
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings
from tradingbot.users import repository as user_repository
from tradingbot.users import service as users

_COLUMNS = ("id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at")


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
    create.add_argument(
        "--scope",
        action="append",
        choices=list(Scope),
        type=Scope,
        help="what it may do: read looks, trade changes; can be given twice (default: both)",
    )
    create.add_argument(
        "--expires-days",
        type=days,
        metavar="N",
        help=f"how long it is good, 1 to {MAX_DAYS} (default: for ever)",
    )
    add_json(create)
    create.set_defaults(run=run_create)
    listing = actions.add_parser("list", help="show a user's API keys, without those that are revoked")
    add_owner(listing)
    add_json(listing)
    listing.set_defaults(run=run_list)
    revoke = actions.add_parser("revoke", help="revoke an API key: it is refused at once")
    add_owner(revoke)
    revoke.add_argument("id", type=key_id, metavar="ID", help="from `tradingbot api-key list`")
    revoke.set_defaults(run=run_revoke)


def days(text: str) -> int:
    """Reads a number of days from the command line."""
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not 1 <= int(text) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_DAYS}")
    return int(text)


def key_id(text: str) -> UUID:
    """Reads a key's id from the command line."""
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not the id of a key") from None


def run_create(arguments: argparse.Namespace) -> int:
    """Makes the key and prints it."""
    settings = load(Settings)

    async def create(session: AsyncSession) -> tuple[ApiKey, str]:
        user = await users.get_or_create(session, arguments.user)
        return await api_keys.create(
            session,
            user.id,
            arguments.name,
            settings.secret_key.get_secret_value(),
            frozenset(arguments.scope or Scope),
            arguments.expires_days,
        )

    row, key = in_transaction(settings, create)
    print_once(
        arguments.json,
        "api_key",
        key,
        user=arguments.user,
        name=row.name,
        id=row.id,
        scopes=row.scopes,
        expires_at=row.expires_at,
    )
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Prints the user's keys."""

    async def find(session: AsyncSession) -> list[ApiKey] | None:
        user = await user_repository.find_by_email(session, arguments.user)
        return list(await repository.list_of_user(session, user.id)) if user is not None else None

    keys = in_transaction(load(Settings), find)
    if keys is None:
        print(f"there is no user {arguments.user}", file=sys.stderr)
        return 1
    rows = [[getattr(key, column) for column in _COLUMNS] for key in keys]
    print_rows(arguments.json, _COLUMNS, rows)
    return 0


def run_revoke(arguments: argparse.Namespace) -> int:
    """Revokes the key."""

    async def revoke(session: AsyncSession) -> bool:
        user = await user_repository.find_by_email(session, arguments.user)
        return user is not None and await repository.revoke(session, user.id, arguments.id, utc_now())

    if in_transaction(load(Settings), revoke):
        return 0
    print(f"{arguments.user} has no such API key", file=sys.stderr)
    return 1
