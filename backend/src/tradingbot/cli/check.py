"""`tradingbot check`: what `serve` would find, as a table."""

import argparse
import asyncio
import sys

from tradingbot.cli.steps import STEP_ERRORS, startup_steps
from tradingbot.core.refusal import load
from tradingbot.core.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="for each server (default 0)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints one line for each step; gives 1 if any failed."""
    settings = load(Settings)
    return asyncio.run(_check(settings, arguments.wait))


async def _check(settings: Settings, wait: float) -> int:
    rows = [("settings", "ok", f"{settings.environment}, Binance testnet {_on(settings.binance_testnet)}")]
    for step in startup_steps(settings, wait, redis_wait=wait):
        try:
            rows.append((step.name, "ok", await step.run()))
        except STEP_ERRORS as error:
            rows.append((step.name, "FAILED", str(error)))
    width = max(len(name) for name, _state, _detail in rows)
    for name, state, detail in rows:
        print(f"{name:<{width}}  {state:<6}  {detail}")
    failed = [name for name, state, _detail in rows if state != "ok"]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _on(value: bool) -> str:
    return "on" if value else "off"
