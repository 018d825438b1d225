"""The API of a deployed stack, as its clients call it: through nginx, over HTTPS."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any

import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol


def call(method: str, url: str, **options: Any) -> requests.Response:
    """Send a request through nginx; an API limit that other tests have used up is waited for."""
    for _ in range(30):
        answer = requests.request(method, url, verify=False, timeout=20, **options)
        if answer.status_code != 429:
            return answer
        time.sleep(int(answer.headers["Retry-After"]))
    raise AssertionError("still over the limit after 30 attempts")


@contextlib.contextmanager
def live_events(https_url: str, api_key: str, **options: Any) -> Iterator[ClientConnection]:
    """Open a WebSocket, with a ticket, that gets the user's events from now on."""
    with open_live(https_url, api_key, **options) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "ready"
        yield socket


def open_live(https_url: str, api_key: str, **options: Any) -> ClientConnection:
    """Get a ticket and open a WebSocket with it; the API limit that other tests have used up is waited for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = "wss" + https_url.removeprefix("https") + "/api/v1/ws"
    for _ in range(30):
        made = call("POST", f"{https_url}/api/v1/ws/tickets", headers={"X-API-Key": api_key})
        assert made.status_code == 201, made.text
        protocols = [Subprotocol(name) for name in made.json()["protocols"]]
        try:
            opened: ClientConnection = connect(address, ssl=context, subprotocols=protocols, open_timeout=20, **options)
            return opened
        except InvalidStatus as refused:
            # The handshake is a request, too, and counts against the same limit as the ticket before it.
            if refused.response.status_code != 429:
                raise
            time.sleep(int(refused.response.headers["Retry-After"]))
    raise AssertionError("still over the limit after 30 attempts")
