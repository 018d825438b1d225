"""Arguments that several commands take."""

import argparse
from collections.abc import Callable
from uuid import UUID

from tradingbot.users.service import normalise_email


def name(text: str) -> str:
    """Reads a name from the command line."""
    stripped = text.strip()
    if not stripped or len(stripped) > 100 or not stripped.isprintable():
        raise argparse.ArgumentTypeError("a name has 1 to 100 printable characters")
    return stripped


def email(text: str) -> str:
    """Reads an e-mail address from the command line."""
    try:
        return normalise_email(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def id_of(noun: str) -> Callable[[str], UUID]:
    """Return what reads the id of an `order` or `position` from the command line."""

    def read(text: str) -> UUID:
        try:
            return UUID(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"not the id of any {noun}: `tradingbot {noun} list` shows them"
            ) from None

    return read


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add --user and --strategy, whose rows are to be listed."""
    parser.add_argument("--user", type=email, metavar="EMAIL", help="of this user (default: of all)")
    parser.add_argument("--strategy", type=name, metavar="NAME", help="of strategies of this name")


def add_owner(parser: argparse.ArgumentParser) -> None:
    """Adds --user."""
    parser.add_argument("--user", required=True, type=email, metavar="EMAIL", help="the owner")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds --json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead")
