"""Runs the stub exchange until it is told to stop: `python -m tests.stub_exchange --port N`.

The first line that it prints is its address.
"""

import argparse
import asyncio
import signal
import sys

from tests.stub_exchange.server import StubExchange


async def serve(port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with StubExchange(port) as stub:
        sys.stdout.write(f"{stub.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Reads the port, then serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
