"""The real worker, but that it kills itself: `python -m tests.worker_process STEP [TIME]`.

It does so with SIGKILL, when it comes to the step for the n-th time.
"""

import asyncio
import importlib
import os
import signal
import sys

from tradingbot.cli.worker import start
from tradingbot.core.logging import configure_logging
from tradingbot.core.settings import Settings


def main(step: str, time: int = 1) -> None:
    left = time

    async def told(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    importlib.import_module("tradingbot.migrations.metadata")
    settings = Settings()
    configure_logging(settings.log_level)
    asyncio.run(start(settings, told))


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:]))
