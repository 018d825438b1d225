"""The file by which the worker's health is seen from outside: touched when its work loop has made a turn."""

import os
from pathlib import Path
from time import monotonic

import structlog

log = structlog.stdlib.get_logger("tradingbot.worker")

_INTERVAL = 1.0


class Heartbeat:
    """Touches a file, once a second at most. A turn of the loop is an answer of PostgreSQL."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0
        self._failing = False

    def beat(self) -> None:
        """The work loop has asked PostgreSQL for work and got an answer."""
        if monotonic() < self._next:
            return
        self._next = monotonic() + _INTERVAL
        try:
            self._path.write_text(f"{os.getpid()}\n")
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("the heartbeat cannot be written", path=str(self._path), reason=error.strerror)
            self._failing = True

    def end(self) -> None:
        """The worker stops."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the heartbeat cannot be removed", path=str(self._path), reason=error.strerror)
