"""Processes that begin with all modules imported: they are forked from one that has imported them once.

Importing takes a command longer than its work, and many tests run one. Everything else is as with a process
that is started: arguments, variables, standard streams, signals, exit code, measured coverage.
`python -m tests.forked SOCKET` is the process that they are forked from.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from coverage import process_startup

BACKEND = Path(__file__).resolve().parents[1]
COMMAND, WORKER = "tradingbot.cli.main", "tests.worker_process"
# The modules of single commands are left out: their lines count as covered only if they run while measured.
_IMPORTED = ("tradingbot.app", "tradingbot.migrations.metadata", "tradingbot.worker.main")
_LONGEST_REQUEST = 2**18


class Forked:
    """A process, with as much of `subprocess.Popen` as tests need."""

    def __init__(
        self, module: str, arguments: Sequence[str], environment: dict[str, str], streams: Sequence[IO[bytes]]
    ) -> None:
        """Calls `main` of *module* with *arguments*. *streams*: standard input, output and error."""
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(_origin())
        request = {"module": module, "arguments": list(arguments), "environment": environment}
        descriptors = [stream.fileno() for stream in streams]
        socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
        self.pid = int(self._connection.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None if the process still runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, when the process has ended.

        Raises:
            TimeoutError: it has not ended in *timeout* seconds.
        """
        if self.returncode is None:
            self._connection.settimeout(timeout)
            self.returncode = int(self._connection.recv(32))
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(*arguments: str, given: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs `tradingbot` with these arguments, standard input, and variables beside those of this process."""
    return run_with(os.environ | variables, *arguments, given=given)


def run_with(
    environment: dict[str, str], *arguments: str, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs `tradingbot` with these variables and no others."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(given.encode("utf-8", "surrogatepass"))
        source.seek(0)
        process = Forked(COMMAND, arguments, environment, (source, out, err))
        try:
            code = process.wait(60)
        finally:
            process.kill()
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess(["tradingbot", *arguments], code, *said)


@functools.cache
def _origin() -> str:
    """Starts the process that others are forked from; gives the path of its socket."""
    folder = tempfile.mkdtemp()
    path = f"{folder}/socket"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(16)
    command = [sys.executable, "-m", "tests.forked", str(listener.fileno())]
    process = subprocess.Popen(
        command, env=unmeasured, cwd=BACKEND, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
    )
    listener.close()

    def end() -> None:
        process.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    return path


def _serve(listener: socket.socket) -> int:
    """Forks a process for each request, until standard input ends. Returns an exit code, also in these."""
    for module in _IMPORTED:
        importlib.import_module(module)
    importlib.import_module("tradingbot.exchanges.ccxt_loading").exchange_class("binance")
    # What is there by now stays for ever: no collector looks at it, which would copy it into each process.
    gc.freeze()
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        connection, _address = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _attend(connection)
        connection.close()
    return 0


def _attend(connection: socket.socket) -> int:
    """Send the id and the exit code of a process to who asked for it. Return that code, in that process."""
    message, descriptors, _flags, _address = socket.recv_fds(connection, _LONGEST_REQUEST, 3)
    process_id = os.fork()
    if process_id:
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(process_id).encode())
        _, status = os.waitpid(process_id, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["environment"])
    process_startup()
    main: Callable[[list[str]], int] = importlib.import_module(request["module"]).main
    return main(request["arguments"])


if __name__ == "__main__":
    sys.exit(_serve(socket.socket(fileno=int(sys.argv[1]))))
