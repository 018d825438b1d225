"""`tradingbot order list|cancel|settle`: orders of all users. They need PostgreSQL alone."""

import argparse
from collections.abc import Sequence

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.cli.arguments import add_filters, add_json, id_of
from tradingbot.cli.database import in_transaction
from tradingbot.cli.invalid import print_invalid
from tradingbot.cli.output import print_rows
from tradingbot.core.amounts import plain
from tradingbot.core.errors import NotFoundError
from tradingbot.core.refusal import load
from tradingbot.core.settings import DatabaseSettings
from tradingbot.orders import queries, repository, service
from tradingbot.orders.models import OPEN_STATES, Order, OrderState
from tradingbot.orders.schemas import SettlementIn
from tradingbot.orders.settling import Settlement, settle

COLUMNS = (
    "id",
    "user",
    "strategy",
    "symbol",
    "side",
    "quantity",
    "filled",
    "state",
    "created_at",
    "reason",
)
_OPERATOR = "an operator"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list", help="list orders, the newest first", description="Lists open orders, the newest first."
    )
    add_filters(listing)
    listing.add_argument(
        "--state",
        action="append",
        choices=[str(state) for state in OrderState],
        metavar="STATE",
        help=f"in this state; repeatable (default: what is open): {', '.join(OrderState)}",
    )
    listing.add_argument(
        "--limit", type=_limit, default=50, metavar="NUMBER", help="at most so many, 1 to 1000 (default: 50)"
    )
    add_json(listing)
    listing.set_defaults(run=run_list)

    cancel = actions.add_parser(
        "cancel",
        help="ask for what is left of an order to be cancelled",
        description="Asks the worker to cancel what is left of an open order. An exit ends with it.",
    )
    cancel.add_argument("id", type=id_of("order"), metavar="ID", help="see `order list`")
    cancel.set_defaults(run=run_cancel)

    settling = actions.add_parser(
        "settle",
        help="say what became of an order of which the exchange says nothing",
        description="Books what you say of an order of which the exchange says nothing: its symbol is gone,"
        " or the key is. Look at the exchange first: what you say stands, and what the exchange says later is"
        " not booked. Of an exit the rest is made again, unless you cancel the order first.",
    )
    settling.add_argument("id", type=id_of("order"), metavar="ID", help="see `order list --state unknown`")
    settling.add_argument(
        "--filled",
        required=True,
        metavar="NUMBER",
        help="all that was filled of it (0: nothing), in the base asset, less a fee that was taken from it",
    )
    settling.add_argument(
        "--price", metavar="NUMBER", help="of what was filled, on average, as far as it is not booked already"
    )
    settling.add_argument(
        "--fee", default="0", metavar="NUMBER", help="of the same, in the quote asset (default: 0)"
    )
    settling.add_argument("--reason", required=True, help="how you know; kept with the order")
    settling.set_defaults(run=run_settle)


def run_list(arguments: argparse.Namespace) -> int:
    """Print orders."""
    states = [OrderState(state) for state in arguments.state or OPEN_STATES]

    async def find(session: AsyncSession) -> Sequence[tuple[Order, str, str]]:
        return await queries.list_with_owners(
            session, arguments.user, arguments.strategy, states, arguments.limit
        )

    rows = [
        (
            order.id,
            user,
            strategy,
            order.symbol,
            order.side,
            plain(order.quantity),
            plain(order.filled_quantity),
            order.state,
            order.created_at,
            order.reason,
        )
        for order, user, strategy in in_transaction(load(DatabaseSettings), find)
    ]
    print_rows(arguments.json, COLUMNS, rows)
    return 0


def run_cancel(arguments: argparse.Namespace) -> int:
    """Ask for an order to be cancelled."""

    async def cancel(session: AsyncSession) -> Order:
        order = await repository.find(session, arguments.id)
        if order is None:
            raise NotFoundError(f"There is no order {arguments.id}.")
        return await service.request_cancel(session, order.user_id, order.id)

    order = in_transaction(load(DatabaseSettings), cancel)
    print(f"asked the worker to cancel {_named(order)}; it is {order.state} now")
    return 0


def run_settle(arguments: argparse.Namespace) -> int:
    """Book what the operator says of an order."""
    given = {"filled_quantity": arguments.filled, "fee": arguments.fee, "reason": arguments.reason}
    if arguments.price is not None:
        given["price"] = arguments.price
    try:
        checked = SettlementIn.model_validate(given)
    except ValidationError as error:
        return print_invalid(error, {"filled_quantity": "filled"})
    said = Settlement(checked.filled_quantity, checked.price, checked.fee, checked.reason, _OPERATOR)

    async def book(session: AsyncSession) -> Order:
        return await settle(session, None, arguments.id, said)

    order = in_transaction(load(DatabaseSettings), book)
    filled = f"{plain(order.filled_quantity)} of {plain(order.quantity)} filled"
    print(f"settled {_named(order)}: {order.state}, {filled}")
    return 0


def _named(order: Order) -> str:
    return f"{order.side} {plain(order.quantity)} {order.symbol}"


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 1000")
    return int(text)
