"""`tradingbot notify test`: does a message reach people?"""

import argparse
import asyncio
import sys

from tradingbot.cli.output import print_rows
from tradingbot.core.refusal import load
from tradingbot.core.settings import ObservabilitySettings
from tradingbot.notifications.delivery import Patience
from tradingbot.notifications.sending import Sender
from tradingbot.notifications.targets import Message, Outcome, Target, targets_of

_MESSAGE = Message("failure", "Test of notifications", "If you read this, notifications reach you.")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    test = actions.add_parser(
        "test",
        help="send a test message to every address in NOTIFY_URLS",
        description="Sends a test message, once, to every address in NOTIFY_URLS, and shows what came of it."
        " Exit code 1 if one did not take it.",
    )
    test.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Sends to all targets at once and prints a line for each."""
    settings = load(ObservabilitySettings)
    if settings.notify_urls is None:
        print("NOTIFY_URLS is not set here: the worker needs it, to tell anybody", file=sys.stderr)
        return 1
    targets = targets_of(settings.notify_urls.get_secret_value())
    outcomes = asyncio.run(_send(targets))
    rows = [
        (target.name, "sent" if outcome.sent else f"FAILED: {outcome.reason}")
        for target, outcome in zip(targets, outcomes, strict=True)
    ]
    print_rows(False, ("target", "result"), rows)
    return 0 if all(outcome.sent for outcome in outcomes) else 1


async def _send(targets: list[Target]) -> list[Outcome]:
    timeout = Patience().timeout
    return list(await asyncio.gather(*(Sender(target, timeout).send(_MESSAGE) for target in targets)))
