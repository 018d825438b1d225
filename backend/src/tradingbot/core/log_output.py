"""Where lines of the log go: to standard output, and never so that a request waits for whoever reads it.

A container's standard output is a pipe that the engine reads. While the engine is away nobody does, and
whoever writes to a pipe that is full waits until it is back.
"""

import contextlib
import fcntl
import json
import os
import stat
import sys
import threading
from datetime import UTC, datetime

# Linux's limit for users without privileges (/proc/sys/fs/pipe-max-size): some 3,000 lines.
PIPE_BYTES = 1024 * 1024


class PipeOutput:
    """Writes lines to the pipe that standard output is, and drops those for which it has no room.

    The pipe is opened a second time: not to wait is a property of the opening, and other programs of the
    container, as well as `print` in this one, share the first one. So do the web server's processes: what one
    of them cuts, another one cannot know, and goes on behind it.
    """

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # A user has room for so many pages in pipes (pipe-user-pages-soft); without, it stays as it is.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # A new process has lost nothing, and nobody in it holds the lock.
        self._lock = threading.Lock()
        self._lost = 0
        self._cut = False

    def write(self, line: str) -> None:
        """Write a line that ends in a newline, behind a line that tells of those that were lost before it."""
        with self._lock:
            self._write(line)

    def _write(self, line: str) -> None:
        # In one piece, or the shorter one would find room by itself, again and again.
        before = b"\n" if self._cut else b""
        if self._lost:
            before += _lost_lines(self._lost).encode()
        data = before + line.encode()
        try:
            written = os.write(self._descriptor, data)
        except (BlockingIOError, BrokenPipeError):
            self._lost += 1
            return
        if written >= len(before):
            self._lost = 0
        # What is longer than a page can be cut where the pipe was full.
        self._cut = written < len(data)
        self._lost += self._cut


class StreamOutput:
    """Writes lines to standard output, a terminal, a file or whatever stands in for it."""

    def write(self, line: str) -> None:
        """Write a line that ends in a newline."""
        sys.stdout.write(line)
        sys.stdout.flush()


def log_output() -> PipeOutput | StreamOutput:
    """Return what fits the standard output of this process."""
    if sys.stdout is not sys.__stdout__ or not stat.S_ISFIFO(os.fstat(1).st_mode):
        return StreamOutput()
    try:
        return PipeOutput()
    except OSError:
        # The pipe is somebody else's, as below `sudo -u`, or there is no /proc: what was handed down will do.
        return StreamOutput()


def _lost_lines(number: int) -> str:
    told = {
        "event": "lines of the log were lost: nobody read them",
        "lines": number,
        "level": "warning",
        "logger": "tradingbot.log",
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return json.dumps(told, separators=(",", ":")) + "\n"
