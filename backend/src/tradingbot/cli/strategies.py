"""`tradingbot strategy create`, `list` and `rotate-token`."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.cli.arguments import add_json, add_owner, name
from tradingbot.cli.database import in_transaction
from tradingbot.cli.invalid import print_invalid
from tradingbot.cli.output import print_once
from tradingbot.core.errors import ConflictError, NotFoundError
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings
from tradingbot.exchanges import repository as exchanges
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.strategies import repository
from tradingbot.strategies import service as strategies
from tradingbot.strategies.models import ModelMode, Sizing, Strategy
from tradingbot.strategies.schemas import StrategyIn, StrategyOut
from tradingbot.users import repository as users
from tradingbot.users import service as user_service
from tradingbot.users.models import User

_LIMITS = {
    "max_position": "largest position, in the base asset",
    "max_order_value": "largest order, in the quote asset",
    "max_daily_loss": "loss in one UTC day after which nothing more is opened, in the quote asset",
    "max_orders_per_minute": "orders in 60 seconds",
    "max_alert_age": "age in seconds from which an alert is refused",
}


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
    create.add_argument(
        "--symbol",
        action="append",
        default=[],
        metavar="SYMBOL",
        help="may be traded; repeatable (default any)",
    )
    create.add_argument(
        "--sizing", choices=[str(sizing) for sizing in Sizing], help="how large an order is (default alert)"
    )
    create.add_argument(
        "--sizing-value", metavar="NUMBER", help="units of the base asset, of the quote asset, or per cent"
    )
    create.add_argument(
        "--account", type=name, metavar="NAME", help="exchange account (default: the user's paper account)"
    )
    for limit, text in _LIMITS.items():
        create.add_argument(f"--{limit.replace('_', '-')}", metavar="NUMBER", help=f"limit: {text}")
    create.add_argument(
        "--model-name", type=name, metavar="MODEL", help="model that is asked about each signal"
    )
    create.add_argument(
        "--model-mode",
        choices=[str(mode) for mode in ModelMode],
        help="what it may do: annotate signals, or veto them too (default off)",
    )
    add_json(create)
    create.set_defaults(run=run_create)

    listing = actions.add_parser("list", help="list a user's strategies", description="Lists strategies.")
    add_owner(listing)
    add_json(listing)
    listing.set_defaults(run=run_list)

    rotate = actions.add_parser(
        "rotate-token",
        help="give a strategy a new webhook address, and print it once",
        description="Gives a strategy a new webhook address and prints it once. The old one is dead at once.",
    )
    add_owner(rotate)
    rotate.add_argument("--name", required=True, type=name, help="of the strategy")
    add_json(rotate)
    rotate.set_defaults(run=run_rotate)


def run_create(arguments: argparse.Namespace) -> int:
    """Makes the strategy and prints its address."""
    settings = load(Settings)
    try:
        given = StrategyIn.model_validate(_settings(arguments))
    except ValidationError as error:
        return print_invalid(error)

    async def create(session: AsyncSession) -> str:
        user = await user_service.get_or_create(session, arguments.user)
        account = await _account(session, user, arguments.account)
        placed = given.model_copy(update={"exchange_account_id": account.id if account else None})
        key = settings.secret_key.get_secret_value()
        return (await strategies.make(session, user.id, placed, key))[1]

    try:
        token = in_transaction(settings, create)
    except ConflictError:
        print(
            f"{arguments.user} has a strategy named {arguments.name} already; choose another --name",
            file=sys.stderr,
        )
        return 1
    _print_address(settings, arguments, token)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Prints the user's strategies, the newest first."""

    async def find(session: AsyncSession) -> Sequence[Strategy]:
        user = await _user(session, arguments.user)
        return await repository.list_of_user(session, user.id, None, None)

    rows = in_transaction(load(Settings), find)
    if arguments.json:
        print(json.dumps([StrategyOut.model_validate(row).model_dump(mode="json") for row in rows]))
        return 0
    for row in rows:
        state = "on " if row.is_active else "off"
        print(f"{state}  {row.id}  {row.name}  {', '.join(row.symbols) or 'any symbol'}")
    return 0


def run_rotate(arguments: argparse.Namespace) -> int:
    """Prints the strategy's new address."""
    settings = load(Settings)

    async def rotate(session: AsyncSession) -> str:
        user = await _user(session, arguments.user)
        strategy = await repository.find_by_name(session, user.id, arguments.name)
        if strategy is None:
            raise NotFoundError(f"{arguments.user} has no strategy named {arguments.name}.")
        return await strategies.rotate_token(session, strategy, settings.secret_key.get_secret_value())

    _print_address(settings, arguments, in_transaction(settings, rotate))
    return 0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("name", "sizing", "sizing_value", "model_name", "model_mode", *_LIMITS)
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None} | {"symbols": arguments.symbol}


def _print_address(settings: Settings, arguments: argparse.Namespace, token: str) -> None:
    url = strategies.webhook_url(settings, token)
    print_once(arguments.json, "webhook_url", url, user=arguments.user, name=arguments.name)


async def _user(session: AsyncSession, email: str) -> User:
    user = await users.find_by_email(session, email)
    if user is None:
        raise NotFoundError(f"There is no user {email}.")
    return user


async def _account(session: AsyncSession, user: User, account: str | None) -> ExchangeAccount | None:
    if account is None:
        return None
    found = await exchanges.find_by_name(session, user.id, account)
    if found is None:
        raise NotFoundError(f"{user.email} has no exchange account named {account}.")
    return found
