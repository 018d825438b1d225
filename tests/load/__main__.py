"""Command line of the load: `python -m tests.load --help`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from .client import Client
from .plan import Plan


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.load",
        description="Send alerts and reads at a steady rate, follow live events, and count everything that fails. "
        "Nothing is sent twice. SIGTERM or SIGINT ends the run in order. Exit code 1: something failed.",
    )
    top.add_argument("plan", type=Path, help="where to and with what credentials, as tests.load.plan writes it")
    top.add_argument("--seconds", type=float, help="how long (default: until stopped)")
    top.add_argument("--rate", type=float, default=110, help="requests a second, half of them alerts (default: 110)")
    top.add_argument("--connections", type=int, default=80, help="connections that share the rate (default: 80)")
    top.add_argument("--websockets", type=int, default=20, help="clients of live events (default: 20)")
    top.add_argument("--result", type=Path, help="write everything that was seen here, as JSON")
    return top


async def load(given: argparse.Namespace) -> int:
    """Run the load. Returns the exit code."""
    client = Client(Plan.read(given.plan), given.rate, given.connections, given.websockets)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, client.stop)
    ready = asyncio.Event()
    run = asyncio.create_task(client.run(given.seconds, ready))
    announced = asyncio.create_task(ready.wait())
    await asyncio.wait([run, announced], return_when=asyncio.FIRST_COMPLETED)
    announced.cancel()
    print("running", flush=True)
    result = await run
    if given.result:
        result.write(given.result)
    print(result.table(), flush=True)
    return 1 if result.failures or result.missed() else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(load(parser().parse_args())))
