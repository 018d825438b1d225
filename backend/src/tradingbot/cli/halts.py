"""`tradingbot halt on|off|status`: the kill switches. They need PostgreSQL alone."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.cli.arguments import add_json, email, name
from tradingbot.cli.database import in_transaction
from tradingbot.cli.output import print_rows
from tradingbot.core.amounts import plain
from tradingbot.core.errors import NotFoundError, UnprocessableError
from tradingbot.core.refusal import load
from tradingbot.core.settings import DatabaseSettings
from tradingbot.positions.flattening import Market, left
from tradingbot.risk import halts
from tradingbot.risk import halts_repository as repository
from tradingbot.risk.halts import EVERYBODY, Target
from tradingbot.risk.halts_schemas import HaltOut
from tradingbot.strategies import repository as strategies
from tradingbot.users import repository as users

_LOOK_EVERY = 0.5
_REACH = "a strategy (--user and --strategy), all of a user's (--user), or everybody's (neither)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    on = actions.add_parser(
        "on",
        help="halt: no new entries from now on, exits pass",
        description=f"Halts new entries of {_REACH}. Exits pass, and orders that were sent stay."
        " With --flatten the worker cancels all open orders and closes all positions, for as long as the halt"
        " is on. Exit code 1: not all is closed yet.",
    )
    _add_target(on)
    on.add_argument("--reason", type=_reason, help="shown with every refusal")
    on.add_argument(
        "--flatten", action="store_true", help="cancel all open orders and close all positions, too"
    )
    on.add_argument(
        "--wait",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long to watch --flatten; the worker goes on afterwards (default: 60)",
    )
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("a number of seconds from 0 to 86400")
    return seconds


def run_on(arguments: argparse.Namespace) -> int:
    """Halts, and watches how all is closed if that is asked for."""
    settings = load(DatabaseSettings)

    async def switch(session: AsyncSession) -> Target:
        target = await _target(session, arguments)
        await halts.switch_on(session, target, arguments.reason, flatten=arguments.flatten)
        return target

    target = in_transaction(settings, switch)
    print(f"halted: {_name(arguments)}: no new entries, exits pass")
    return _watch(settings, target, arguments.wait) if arguments.flatten else 0


def _watch(settings: DatabaseSettings, target: Target, seconds: float) -> int:
    """Print what is left whenever that changes; return 0 when nothing is."""
    deadline = time.monotonic() + seconds
    shown: Sequence[Market] | None = None
    while True:
        markets = in_transaction(settings, partial(left, target=target))
        if not markets:
            print("flat: nothing is held, and no order is open")
            return 0
        if markets != shown:
            shown = markets
            print(f"{datetime.now(UTC):%H:%M:%S}Z  left to close: {len(markets)}", flush=True)
            rows = [(one.user, one.strategy, one.symbol, plain(one.held), one.open_orders) for one in markets]
            print_rows(False, ("USER", "STRATEGY", "SYMBOL", "HELD", "OPEN ORDERS"), rows)
        if time.monotonic() >= deadline:
            print(
                "not all is closed yet. The worker goes on until it is, or the halt ends; whether there is a"
                " worker says `tradingbot health worker`.",
                file=sys.stderr,
            )
            return 1
        time.sleep(min(_LOOK_EVERY, max(0.0, deadline - time.monotonic())))


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
        how = "  closes all" if halt.flatten else ""
        print(f"{halt.created_at:%Y-%m-%d %H:%M:%S}Z  {whose}{how}  {halt.reason or ''}".rstrip())
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
