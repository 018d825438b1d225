"""`tradingbot halt on|off|status`: the kill switches. They need PostgreSQL alone."""

import argparse
import json

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.cli.arguments import add_json, email, name
from tradingbot.cli.database import in_transaction
from tradingbot.core.errors import NotFoundError, UnprocessableError
from tradingbot.core.refusal import load
from tradingbot.core.settings import DatabaseSettings
from tradingbot.risk import halts
from tradingbot.risk import halts_repository as repository
from tradingbot.risk.halts import EVERYBODY, Target
from tradingbot.risk.halts_schemas import HaltOut
from tradingbot.strategies import repository as strategies
from tradingbot.users import repository as users

_REACH = "a strategy (--user and --strategy), all of a user's (--user), or everybody's (neither)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    on = actions.add_parser(
        "on",
        help="halt: no new entries from now on, exits pass",
        description=f"Halts new entries of {_REACH}. Exits pass, and orders that were sent stay.",
    )
    _add_target(on)
    on.add_argument("--reason", type=_reason, help="shown with every refusal")
    on.set_defaults(run=run_on)
    off = actions.add_parser(
        "off", help="end a halt", description=f"Ends the halt of {_REACH}, and no other."
    )
    _add_target(off)
    off.set_defaults(run=run_off)
    status = actions.add_parser(
        "status", help="list the halts", description="Lists all halts: no new entries, exits pass."
    )
    add_json(status)
    status.set_defaults(run=run_status)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", type=email, metavar="EMAIL", help="whose; without it, everybody's")
    parser.add_argument("--strategy", type=name, metavar="NAME", help="which of the user's; without it, all")


def _reason(text: str) -> str:
    stripped = text.strip()
    if not 1 <= len(stripped) <= 500 or not stripped.isprintable():
        raise argparse.ArgumentTypeError("a reason has 1 to 500 printable characters")
    return stripped


def run_on(arguments: argparse.Namespace) -> int:
    """Halts."""

    async def switch(session: AsyncSession) -> None:
        await halts.switch_on(session, await _target(session, arguments), arguments.reason)

    in_transaction(load(DatabaseSettings), switch)
    print(f"halted: {_name(arguments)}: no new entries, exits pass")
    return 0


def run_off(arguments: argparse.Namespace) -> int:
    """Ends a halt."""

    async def switch(session: AsyncSession) -> bool:
        return await halts.switch_off(session, await _target(session, arguments))

    was_on = in_transaction(load(DatabaseSettings), switch)
    print(f"{'no longer halted' if was_on else 'was not halted'}: {_name(arguments)}")
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Lists the halts, the farthest reaching first."""
    rows = in_transaction(load(DatabaseSettings), repository.list_all)
    if arguments.json:
        shown = [
            {**HaltOut.of(halt).model_dump(mode="json"), "user": user, "strategy": strategy}
            for halt, user, strategy in rows
        ]
        print(json.dumps(shown))
        return 0
    for halt, user, strategy in rows:
        whose = f"{user} {strategy or 'all strategies'}" if user else "everybody"
        print(f"{halt.created_at:%Y-%m-%d %H:%M:%S}Z  {whose}  {halt.reason or ''}".rstrip())
    if not rows:
        print("nothing is halted")
    return 0


async def _target(session: AsyncSession, arguments: argparse.Namespace) -> Target:
    if arguments.user is None:
        if arguments.strategy is not None:
            raise UnprocessableError("--strategy needs --user: names are those of a user.")
        return EVERYBODY
    user = await users.find_by_email(session, arguments.user)
    if user is None:
        raise NotFoundError(f"There is no user {arguments.user}.")
    if arguments.strategy is None:
        return Target(user.id)
    strategy = await strategies.find_by_name(session, user.id, arguments.strategy)
    if strategy is None:
        raise NotFoundError(f"{arguments.user} has no strategy named {arguments.strategy}.")
    return Target(user.id, strategy.id)


def _name(arguments: argparse.Namespace) -> str:
    if arguments.user is None:
        return "everybody"
    return f"{arguments.user} {arguments.strategy or 'all strategies'}"
