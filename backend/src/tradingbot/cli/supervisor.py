"""Starts the workers by fork, from a parent that has imported the application already.

Uvicorn starts each worker as a new interpreter, which imports all again: with four workers on two cores that
is most of the time until the first answer. Forked ones answer at once and share the parent's memory. A
worker that dies later is replaced by uvicorn in its own way.
"""

import gc
import importlib
import multiprocessing
from socket import socket
from typing import Any, cast

from uvicorn import Config
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process


class _ForkedProcess(Process):
    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        forked = multiprocessing.get_context("fork").Process(target=self.target, kwargs={"sockets": sockets})
        self.process = cast("Any", forked)


class ForkingSupervisor(Multiprocess):
    """Uvicorn's supervisor, with forked first workers."""

    def init_processes(self) -> None:
        """Imports the application once, then starts the workers."""
        importlib.import_module(str(self.config.app).partition(":")[0])
        gc.collect()
        gc.freeze()
        for _ in range(self.processes_num):
            process = _ForkedProcess(self.config, self.sockets)
            process.start()
            self.processes.append(process)
