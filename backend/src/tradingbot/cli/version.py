"""`tradingbot version`."""

import argparse

from tradingbot import __version__


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: none."""
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Prints the version."""
    print(f"tradingbot {__version__}")
    return 0
