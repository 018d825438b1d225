"""The real worker, but that it kills itself with SIGKILL, when it comes to a step for the n-th time."""

import asyncio
import importlib
import os
import signal
from collections.abc import Sequence

from tradingbot.cli.worker import start
from tradingbot.core.logging import configure_logging
from tradingbot.core.settings import Settings


def main(arguments: Sequence[str]) -> int:
    """Works until the step, and the time that it comes: the arguments. Returns the exit code."""
    step, left = arguments[0], int(arguments[1])

    async def told(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    importlib.import_module("tradingbot.migrations.metadata")
    settings = Settings()
    configure_logging(settings.log_level)
    return asyncio.run(start(settings, told))
