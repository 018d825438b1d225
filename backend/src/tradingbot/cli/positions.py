"""`tradingbot position list|adopt|correct`: positions of all users. They need PostgreSQL alone."""

import argparse
from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.cli.arguments import add_filters, add_json, id_of
from tradingbot.cli.database import in_transaction
from tradingbot.cli.invalid import print_invalid
from tradingbot.cli.output import print_rows
from tradingbot.core.amounts import plain
from tradingbot.core.refusal import load
from tradingbot.core.settings import DatabaseSettings
from tradingbot.positions import queries
from tradingbot.positions.correcting import Correction, correct
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.positions.schemas import AdoptionIn, CorrectionIn

COLUMNS = (
    "id",
    "user",
    "strategy",
    "symbol",
    "quantity",
    "average_price",
    "account_holds",
    "of",
    "differs_since",
)
_OPERATOR = "an operator"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list",
        help="list what is held, by the book and by the exchange",
        description="Lists what strategies hold by the book, and what their account was last seen to hold of"
        " that market. Where that differs nothing is opened until it agrees again.",
    )
    add_filters(listing)
    add_json(listing)
    listing.set_defaults(run=run_list)

    adopt = actions.add_parser(
        "adopt",
        help="make the book say what the exchange says",
        description="Makes the book say what the exchange says of a position: its owner closed it by hand,"
        " say, or it was liquidated. The difference is booked as an order and a fill; nothing is traded.",
    )
    correcting = actions.add_parser(
        "correct",
        help="make the book say what you say",
        description="Makes the book say what you say of a position. The difference is booked as an order and"
        " a fill; nothing is traded.",
    )
    for action in (adopt, correcting):
        action.add_argument("id", type=id_of("position"), metavar="ID", help="see `position list`")
    correcting.add_argument(
        "--quantity", required=True, metavar="NUMBER", help="in the base asset, negative when short"
    )
    for action in (adopt, correcting):
        action.add_argument(
            "--price",
            metavar="NUMBER",
            help="what the difference was traded at (default: the last known price)",
        )
        action.add_argument("--reason", required=True, help="how you know; kept with the order")
        action.set_defaults(run=run_correct)


def run_list(arguments: argparse.Namespace) -> int:
    """Print positions."""

    async def find(session: AsyncSession) -> Sequence[tuple[Position, str, str, AccountHolding | None]]:
        return await queries.list_with_owners(session, arguments.user, arguments.strategy)

    rows = [
        (
            position.id,
            user,
            strategy,
            position.symbol,
            plain(position.quantity),
            plain(position.average_price),
            None if holding is None else plain(holding.quantity),
            None if holding is None else holding.asset,
            None if holding is None else holding.differs_since,
        )
        for position, user, strategy, holding in in_transaction(load(DatabaseSettings), find)
    ]
    print_rows(arguments.json, COLUMNS, rows)
    return 0


def run_correct(arguments: argparse.Namespace) -> int:
    """Book what the operator says of a position: `adopt` says no quantity."""
    names = ("quantity", "price", "reason")
    given = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    kind = CorrectionIn if arguments.action == "correct" else AdoptionIn
    try:
        checked = kind.model_validate(given)
    except ValidationError as error:
        return print_invalid(error, {})
    quantity = checked.quantity if isinstance(checked, CorrectionIn) else None
    said = Correction(quantity, checked.price, checked.reason, _OPERATOR)

    async def book(session: AsyncSession) -> Position:
        return await correct(session, None, arguments.id, said)

    position = in_transaction(load(DatabaseSettings), book)
    print(f"the book says now: {plain(position.quantity)} {position.symbol}")
    return 0
