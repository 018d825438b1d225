"""`tradingbot health [worker]`: asks the process beside us, for the container's health check."""

import argparse
import http.client
import os
import sys
import tempfile
import time
from pathlib import Path

_TIMEOUT = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: which process."""
    parser.add_argument(
        "process",
        nargs="?",
        choices=("serve", "worker"),
        default="serve",
        help="the web server (default), or the worker by the file that it touches",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Gives 0 if the process is healthy."""
    return _worker() if arguments.process == "worker" else _server()


def _server() -> int:
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("PORT") or 8001), timeout=_TIMEOUT
    )
    try:
        connection.request("GET", "/api/v1/health")
        response = connection.getresponse()
        healthy = response.status == 200 and b"healthy" in response.read()
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    print("healthy" if healthy else f"status {response.status}")
    return 0 if healthy else 1


def _worker() -> int:
    # Settings are not loaded: that takes longer than all else here. These are their names and defaults.
    default = Path(tempfile.gettempdir()) / "tradingbot-worker.alive"
    path = Path(os.environ.get("WORKER_HEALTH_FILE") or default)
    longest = float(os.environ.get("WORKER_HEALTH_MAX_AGE") or 60)
    try:
        age = time.time() - path.stat().st_mtime
    except OSError as error:
        print(f"no sign of life: {path}: {error.strerror}", file=sys.stderr)
        return 1
    if age > longest:
        print(f"the last sign of life is {age:.0f} s old", file=sys.stderr)
        return 1
    print("healthy")
    return 0
