"""From the alert to its fill on paper, as a trader sees it: through nginx, with TLS, on a WebSocket."""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.request
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.testbed.hosts import Host
from tests.testbed.shell import TestbedError, step

from . import host as bench
from .report import Aim, Report, Row

ADDRESS = f"127.0.0.1:{bench.HTTPS_PORT}"
USER = "bench@example.com"
ALERTS_PER_SECOND = 5
ALERTS = 100
PATIENCE = 20


def measure(host: Host, report: Report) -> None:
    """Send alerts at a steady pace and take the time until the fill of each is seen."""
    with step(f"{ALERTS} alerts, {ALERTS_PER_SECOND} a second, each to its fill"):
        times = sorted(seconds * 1000 for seconds in alert_to_fill(host))
    at = f"{ALERTS_PER_SECOND} alerts a second"
    report.add("From the alert to its fill on the WebSocket", Row(f"p50, {at}", percentile(times, 50), "ms"))
    aim = Aim(250)
    report.add(
        "From the alert to its fill on the WebSocket", Row(f"p99, {at}", percentile(times, 99), "ms", aims=(aim,))
    )


def percentile(ordered: list[float], percent: int) -> float:
    """Return the nearest-rank percentile of values in ascending order."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def alert_to_fill(host: Host) -> list[float]:
    """Return the seconds from sending each alert to receiving its fill. Raises TestbedError when a fill is missing."""
    name = f"trading-{time.time_ns()}"
    url = made(host, "strategy", "create", "--name", name)["webhook_url"]
    key = made(host, "api-key", "create", "--name", name)["api_key"]
    path = "/" + str(url).split("/", 3)[3]
    sent: dict[str, float] = {}
    with websocket(str(key)) as socket:
        sender = threading.Thread(target=send_all, args=(path, sent))
        sender.start()
        filled = watch(socket)
        sender.join()
    missing = set(sent) - set(filled)
    if missing or len(sent) != ALERTS:
        raise TestbedError(f"{len(sent)} alerts were sent, and {len(missing)} of them have no fill after {PATIENCE} s")
    return [filled[signal] - moment for signal, moment in sent.items()]


def made(host: Host, *arguments: str) -> dict[str, Any]:
    """Run the backend's command line on the host and return what it made."""
    command = ["exec", "-T", "worker", "tradingbot", *arguments, "--user", USER, "--json"]
    return dict(json.loads(bench.compose(host, *command)))


def send_all(path: str, sent: dict[str, float]) -> None:
    """Send the alerts, and note when each was sent, by its signal's id."""
    started = time.monotonic()
    for number in range(ALERTS):
        time.sleep(max(0.0, started + number / ALERTS_PER_SECOND - time.monotonic()))
        alert = {
            "id": f"{started}-{number}",
            "symbol": "BTCUSDT",
            "action": ("buy", "sell")[number % 2],
            "quantity": "0.01",
            "price": "64000",
        }
        moment = time.monotonic()
        sent[str(call(path, alert)["id"])] = moment


def watch(socket: ClientConnection) -> dict[str, float]:
    """Return when the fill of each signal came in."""
    signals: dict[str, str] = {}
    filled: dict[str, float] = {}
    deadline = time.monotonic() + ALERTS / ALERTS_PER_SECOND + PATIENCE
    while len(filled) < ALERTS and time.monotonic() < deadline:
        try:
            message = json.loads(socket.recv(timeout=deadline - time.monotonic()))
        except TimeoutError:
            break
        data = message.get("data", {})
        if message["type"] == "order":
            signals[data["id"]] = data["signal_id"]
        elif message["type"] == "fill":
            filled.setdefault(signals[data["order_id"]], time.monotonic())
    return filled


def websocket(key: str) -> ClientConnection:
    """Open a WebSocket with a ticket, and wait until it is ready."""
    ticket = call("/api/v1/ws/tickets", {}, {"X-API-Key": key})["ticket"]
    protocols: Any = ["tradingbot.v1", f"ticket.{ticket}"]
    socket = connect(f"wss://{ADDRESS}/api/v1/ws", ssl=context(), subprotocols=protocols)
    first = json.loads(socket.recv(timeout=PATIENCE))
    if first["type"] != "ready":
        raise TestbedError(f"the WebSocket begins with {first['type']}")
    return socket


def call(path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    """POST JSON and return the answer's."""
    request = urllib.request.Request(f"https://{ADDRESS}{path}", json.dumps(body).encode(), headers or {})
    with urllib.request.urlopen(request, timeout=10, context=context()) as answer:
        return dict(json.load(answer))


def context() -> ssl.SSLContext:
    """The certificate is self-signed, and the way is loopback."""
    found = ssl.create_default_context()
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    return found
