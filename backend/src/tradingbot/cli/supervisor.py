"""Starts the workers by fork, from a parent that has imported the application already.

Uvicorn starts each worker as a new interpreter, which imports all again: with four workers on two cores that
is most of the time until the first answer. Forked ones answer at once and share the parent's memory. A
worker that dies later is replaced by uvicorn in its own way.

SIGUSR1 has the clients of all WebSockets reconnect (close code 1012), when the web server before this is
replaced.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
from socket import socket
from typing import Any, cast

from uvicorn import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from tradingbot.core.metrics_files import forget_process


class _ForkedProcess(Process):
    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        forked = multiprocessing.get_context("fork").Process(target=self.target, kwargs={"sockets": sockets})
        self.process = cast("Any", forked)


class ForkingSupervisor(Multiprocess):
    """Uvicorn's supervisor, with forked first workers and gauges of those that live."""

    def init_processes(self) -> None:
        """Imports the application and builds its endpoints once, then starts the workers."""
        # Here and not above: `serve` first looks whether what the application needs is there.
        from tradingbot.app import endpoints

        endpoints()
        gc.collect()
        gc.freeze()
        for _ in range(self.processes_num):
            process = _ForkedProcess(self.config, self.sockets)
            process.start()
            self.processes.append(process)
        self._counted = self._pids()
        # After the forks: workers have a handler of their own.
        signal.signal(signal.SIGUSR1, lambda *_: self._reconnect_all())

    def _reconnect_all(self) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    def keep_subprocess_alive(self) -> None:
        """Replaces workers that died, and takes those that are gone out of the gauges."""
        super().keep_subprocess_alive()
        there = self._pids()
        for pid in self._counted - there:
            forget_process(pid)
        self._counted = there

    def _pids(self) -> set[int]:
        return {process.pid for process in self.processes if process.pid is not None}
