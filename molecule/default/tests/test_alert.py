"""The main job: an alert in TradingView's form comes in over HTTPS, is kept once, and can be read and watched."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import requests
from websockets.sync.client import ClientConnection

from tests.stack.api import call, live_events
from tests.stack.host import query
from tests.testbed import demo, hosts

WEBHOOKS = "/api/v1/webhooks/tradingview"


def alert(**other: Any) -> dict[str, Any]:
    """Return an alert as TradingView fills in its placeholders, with an order that nobody has placed yet."""
    return {
        "ticker": "BTCUSDT",
        "action": "buy",
        "contracts": "0.05",
        "price": 64250.1,
        "market_position": "long",
        "position_size": "0.05",
        "order_id": f"Long {time.time_ns()}",
        "timenow": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "comment": "breakout, 突破",
    } | other


@pytest.fixture(scope="module")
def webhook(https_url: str, new_webhook_token: Callable[[], str]) -> str:
    """A webhook's whole address."""
    return f"{https_url}{WEBHOOKS}/{new_webhook_token()}"


def post(webhook: str, body: str, content_type: str) -> requests.Response:
    """Send *body* as TradingView does."""
    return call("POST", webhook, data=body.encode(), headers={"Content-Type": content_type})


def read_back(https_url: str, api_key: str, identity: str) -> dict[str, Any]:
    """Return the signal *identity* as the API shows it among the newest."""
    answer = call("GET", f"{https_url}/api/v1/signals?limit=20", headers={"X-API-Key": api_key})
    assert answer.status_code == 200
    (found,) = [item for item in answer.json()["items"] if item["id"] == identity]
    return dict(found)


def seen_live(socket: ClientConnection, seconds: float, until: str = "") -> list[dict[str, Any]]:
    """Return the signals that come within *seconds*, or up to the first event of *until*."""
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = json.loads(socket.recv(timeout=left))
        except TimeoutError:
            break
        if message["type"] == "signal":
            found.append(message["data"])
            if found[-1]["id"] == until:
                break
    return found


# TradingView sends text/plain when it takes the message for text, so that must not matter.
@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain; charset=utf-8"])
def test_an_alert_is_stored_read_back_and_seen_live(
    machine: hosts.Host, secrets: dict[str, str], https_url: str, webhook: str, api_key: str, content_type: str
) -> None:
    sent = alert()
    with live_events(https_url, api_key) as socket:
        answer = post(webhook, json.dumps(sent, ensure_ascii=False), content_type)
        assert answer.status_code == 202, answer.text
        identity = answer.json()["id"]
        assert answer.json() == {"id": identity, "status": "accepted"}
        live = seen_live(socket, 10, until=identity)

    columns = "symbol, action, quantity::float, price::float, market_position, order_id, comment"
    rows = query(
        machine,
        secrets["vault_postgres_readonly_password"],
        f"SELECT {columns}, payload->>'ticker', now() - received_at < '1 minute' FROM signals WHERE id = '{identity}';",
    )
    assert rows == [f"BTCUSDT|buy|0.05|64250.1|long|{sent['order_id']}|breakout, 突破|BTCUSDT|t"]

    item = read_back(https_url, api_key, identity)
    shown = {"symbol": "BTCUSDT", "action": "buy", "quantity": "0.05", "price": "64250.1", "comment": "breakout, 突破"}
    assert shown.items() <= item.items()
    assert (item["sent_at"], item["order_id"]) == (sent["timenow"], sent["order_id"])
    assert live, "a worker took it up"
    decided_later = {"status", "status_reason", "processed_at"}
    assert {name: value for name, value in live[-1].items() if name not in decided_later}.items() <= item.items()


def test_a_repeated_alert_is_stored_once(
    machine: hosts.Host, secrets: dict[str, str], https_url: str, webhook: str, api_key: str
) -> None:
    """TradingView sends again when it got no answer in time."""
    body = json.dumps(alert())
    first = post(webhook, body, "application/json")
    with live_events(https_url, api_key) as socket:
        again = post(webhook, body, "text/plain")
        assert {signal["id"] for signal in seen_live(socket, 2)} <= {first.json()["id"]}
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == {"id": first.json()["id"], "status": "duplicate"}
    order = json.loads(body)["order_id"]
    count = f"SELECT count(*) FROM signals WHERE order_id = '{order}';"
    assert query(machine, secrets["vault_postgres_readonly_password"], count) == ["1"]


def well_formed(body: str) -> str:
    """Return a token with the checksum that the backend looks at before it asks the database."""
    return body + base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big")).decode().rstrip("=")


@pytest.mark.parametrize("token", ["not-one", well_formed("tbw_" + "0" * 43)])
def test_an_unknown_address_stores_nothing(
    machine: hosts.Host, secrets: dict[str, str], https_url: str, token: str
) -> None:
    sent = alert()
    answer = post(f"{https_url}{WEBHOOKS}/{token}", json.dumps(sent), "application/json")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    count = f"SELECT count(*) FROM signals WHERE order_id = '{sent['order_id']}';"
    assert query(machine, secrets["vault_postgres_readonly_password"], count) == ["0"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("BTCUSDT crossed 64000", "JSON"),
        (json.dumps({"ticker": "BTCUSDT"}), "action"),
        (json.dumps({"ticker": "BTCUSDT", "action": "buy", "price": "much"}), "price"),
    ],
)
def test_a_bad_alert_is_refused_by_name(webhook: str, body: str, named: str) -> None:
    answer = post(webhook, body, "text/plain")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert named in answer.text


@pytest.mark.parametrize("key", [None, "not-one", well_formed("tbk_" + "0" * 43)])
def test_signals_are_for_their_owner_alone(
    https_url: str, backend_cli: Callable[..., dict[str, str]], key: str | None
) -> None:
    headers = {"X-API-Key": key} if key else {}
    assert call("GET", f"{https_url}/api/v1/signals", headers=headers).status_code == 401
    stranger = backend_cli("api-key", "create", "--user", f"s{time.time_ns()}@example.com", "--name", "k")["api_key"]
    assert call("GET", f"{https_url}/api/v1/signals", headers={"X-API-Key": stranger}).json()["items"] == []


def test_an_alert_by_the_demos_credentials(machine: hosts.Host, https_url: str) -> None:
    """`make demo` makes them by the host's own command, as the README says."""
    user = ["--user", f"demo-{time.time_ns()}@example.com", "--name", "demo"]
    webhook = demo.tradingbot(machine, "strategy", "create", *user)["webhook_url"]
    key = demo.tradingbot(machine, "api-key", "create", *user)["api_key"]
    assert call("POST", f"{https_url}/{webhook.split('/', 3)[3]}", json=alert()).status_code == 202
    headers = {"X-API-Key": key}
    assert len(call("GET", f"{https_url}/api/v1/signals", headers=headers).json()["items"]) == 1
