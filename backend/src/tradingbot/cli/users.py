"""`tradingbot user`: accounts, their passwords, and who is an administrator."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.auth import lockout
from tradingbot.auth import repository as sessions
from tradingbot.cli.arguments import add_json, email
from tradingbot.cli.database import in_transaction
from tradingbot.cli.output import print_rows
from tradingbot.core.address import Address
from tradingbot.core.models import utc_now
from tradingbot.core.passwords import Passwords
from tradingbot.core.redis import make_redis
from tradingbot.core.refusal import load
from tradingbot.core.settings import DatabaseSettings, Settings
from tradingbot.users import repository
from tradingbot.users.service import check_password

_COLUMNS = ("email", "is_active", "is_admin", "has_password", "created_at")


class _Change(NamedTuple):
    """A command that sets a column of a user."""

    help: str
    values: Mapping[str, object]
    signs_out: bool


_CHANGES = {
    "deactivate": _Change(
        "close an account: sessions end; keys, webhooks and sign-in are refused", {"is_active": False}, True
    ),
    "activate": _Change("open a closed account again", {"is_active": True}, False),
    "grant-admin": _Change("make somebody an administrator", {"is_admin": True}, False),
    "revoke-admin": _Change("take that back", {"is_admin": False}, False),
}


class RefusedError(Exception):
    """The command cannot do this; the message says why."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    parser.description = "Accounts. A password is asked for, or read from standard input; never an argument."
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _add(actions, "create", "create an account with a password")
    create.add_argument("--admin", action="store_true", help="make it an administrator's")
    _add_password(create)
    create.set_defaults(run=_refusing(run_create))
    set_password = _add(actions, "set-password", "give an account another password; its sessions end")
    _add_password(set_password)
    set_password.set_defaults(run=_refusing(run_set_password))
    unlock = _add(
        actions,
        "unlock",
        "let somebody sign in again who has failed too often, or whom others have locked out",
    )
    unlock.set_defaults(run=_refusing(run_unlock))
    for name, change in _CHANGES.items():
        _add(actions, name, change.help).set_defaults(run=_refusing(run_change))
    listing = actions.add_parser("list", help="show all accounts")
    add_json(listing)
    listing.set_defaults(run=run_list)


def run_create(arguments: argparse.Namespace) -> None:
    """Makes an account."""
    settings = load(DatabaseSettings)
    password_hash = _ask_for_hash(arguments)

    async def create(session: AsyncSession) -> bool:
        made = await repository.insert_once(session, arguments.email, password_hash, is_admin=arguments.admin)
        return made is not None

    if not in_transaction(settings, create):
        raise RefusedError(
            f"{arguments.email} exists already: see `tradingbot user set-password` and `grant-admin`"
        )


def run_set_password(arguments: argparse.Namespace) -> None:
    """Stores another password and ends all sessions."""
    settings = load(DatabaseSettings)
    password_hash = _ask_for_hash(arguments)
    _change(settings, arguments.email, {"password_hash": password_hash}, signs_out=True)


def run_change(arguments: argparse.Namespace) -> None:
    """Sets what the action is there for."""
    change = _CHANGES[arguments.action]
    _change(load(DatabaseSettings), arguments.email, change.values, signs_out=change.signs_out)


def run_unlock(arguments: argparse.Namespace) -> None:
    """Forgets all failed attempts at an account."""
    settings = load(Settings)

    async def unlock() -> int:
        async with make_redis(settings) as redis:
            return await lockout.unlock(redis, settings, arguments.email)

    try:
        counts = asyncio.run(unlock())
    except (RedisError, OSError) as error:
        where = Address(settings.redis_url.get_secret_value(), 6379)
        raise RefusedError(
            f"Redis at {where}, which counts the attempts, cannot be asked ({type(error).__name__})"
        ) from None
    if counts:
        print(f"{arguments.email} may try again; an address that has failed at many accounts still waits")
    else:
        print(f"{arguments.email} has no failed attempts")


def run_list(arguments: argparse.Namespace) -> int:
    """Prints all accounts."""
    users = in_transaction(load(DatabaseSettings), repository.list_all)
    rows = [
        (user.email, user.is_active, user.is_admin, user.password_hash is not None, user.created_at)
        for user in users
    ]
    print_rows(arguments.json, _COLUMNS, rows)
    return 0


def _add(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--email", required=True, type=email, metavar="EMAIL", help="whose account it is")
    return parser


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input, one line",
    )


def _refusing(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], int]:
    def wrapped(arguments: argparse.Namespace) -> int:
        try:
            run(arguments)
        except RefusedError as error:
            print(error, file=sys.stderr)
            return 1
        return 0

    return wrapped


def _change(
    settings: DatabaseSettings, address: str, values: Mapping[str, object], *, signs_out: bool
) -> None:
    async def change(session: AsyncSession) -> bool:
        user_id = await repository.change(session, address, **values)
        if user_id is not None and signs_out:
            await sessions.revoke_others(session, user_id, None, utc_now())
        return user_id is not None

    if not in_transaction(settings, change):
        raise RefusedError(f"there is no user {address}")


def _ask_for_hash(arguments: argparse.Namespace) -> str:
    password = sys.stdin.readline().rstrip("\r\n") if arguments.password_stdin else _prompt()
    try:
        check_password(password, arguments.email)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    passwords = Passwords()
    try:
        return asyncio.run(passwords.hash(password))
    finally:
        passwords.close()


def _prompt() -> str:
    if not sys.stdin.isatty():
        raise RefusedError("no terminal to ask for the password: give --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise RefusedError("the two passwords differ")
    return password
