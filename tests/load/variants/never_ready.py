#!/opt/tradingbot/bin/python
"""`tradingbot`, but its web server says that it is not ready, for ever."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Unready(BaseHTTPRequestHandler):
    """Answers everything with 503."""

    def do_GET(self) -> None:
        """Refuse."""
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()


if sys.argv[1:2] != ["serve"]:
    os.execv(sys.executable, [sys.executable, "-m", "tradingbot", *sys.argv[1:]])
ThreadingHTTPServer(("", 8001), Unready).serve_forever()
