"""`tradingbot health`: asks the web server beside us, for the container's health check."""

import argparse
import http.client
import os
import sys

_TIMEOUT = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments: none."""
    parser.set_defaults(run=run)


def run(_arguments: argparse.Namespace) -> int:
    """Gives 0 if the server says that it is healthy."""
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
