"""From the alert to the position: traded on paper once, within the strategy's limits, also when the worker was away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.stack.api import call, live_events
from tests.stack.host import COMPOSE, output_of, services, slot_address, wait_until
from tests.testbed import hosts

TRADED_WITHIN = 20
ASK = "import urllib.request as r; print(r.urlopen('http://{host}:{port}/metrics', timeout=3).read().decode())"


class Desk:
    """One strategy, as its owner sees it over HTTPS."""

    def __init__(self, https_url: str, api_key: str, webhook_url: str) -> None:
        self._url = https_url
        self.api_key = api_key
        self._headers = {"X-API-Key": api_key}
        self._webhook = f"{https_url}/{webhook_url.split('/', 3)[3]}"

    def send(self, **alert: Any) -> str:
        """Send an alert of BTCUSDT; return its signal's id."""
        answer = call("POST", self._webhook, json={"symbol": "BTCUSDT", "id": time.time_ns()} | alert)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, path: str) -> Any:
        """Return what the API answers."""
        answer = call("GET", f"{self._url}/api/v1/{path}", headers=self._headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_until_decided(self, *identities: str) -> list[str]:
        """Wait until the worker has decided on signals, the newest of the strategy's; return their statuses."""
        found: dict[str, str] = {}

        def all_decided() -> bool:
            found.update((item["id"], item["status"]) for item in self.get("signals?limit=50")["items"])
            return all(found[identity] != "queued" for identity in identities)

        # All in one request: the API takes 60 a minute.
        wait_until(all_decided, TRADED_WITHIN, f"{len(identities)} signals are decided", every=0.5)
        return [found[identity] for identity in identities]

    def position(self) -> Decimal:
        """Return the quantity that the strategy holds."""
        return sum((Decimal(item["quantity"]) for item in self.get("positions")["items"]), Decimal(0))


@pytest.fixture
def desk(https_url: str, backend_cli: Callable[..., dict[str, str]]) -> Desk:
    """A user of their own with a strategy that may hold one BTC."""
    user = f"trader-{time.time_ns()}@example.com"
    made = backend_cli("strategy", "create", "--user", user, "--name", "first", "--max-position", "1")
    key = backend_cli("api-key", "create", "--user", user, "--name", "first")["api_key"]
    return Desk(https_url, key, made["webhook_url"])


def test_an_alert_becomes_an_order_a_fill_and_a_position(desk: Desk) -> None:
    identity = desk.send(action="buy", quantity="0.1", price="64000")
    assert desk.wait_until_decided(identity) == ["ordered"]
    (order,) = desk.get("orders")["items"]
    assert (order["signal_id"], order["state"], order["filled_quantity"]) == (identity, "filled", "0.1")
    (fill,) = desk.get("fills")["items"]
    assert (fill["order_id"], fill["quantity"], fill["price"]) == (order["id"], "0.1", "64000")
    assert desk.position() == Decimal("0.1")


def test_a_limit_is_kept_and_the_refusal_says_which(desk: Desk) -> None:
    identity = desk.send(action="buy", quantity="1.5", price="64000")
    assert desk.wait_until_decided(identity) == ["refused"]
    (refusal,) = desk.get("refusals")["items"]
    assert (refusal["signal_id"], refusal["rule"]) == (identity, "max_position")
    assert desk.get("orders")["items"] == []


def test_alerts_wait_for_a_worker_that_is_away_and_are_traded_once(machine: hosts.Host, desk: Desk) -> None:
    output_of(machine, f"{COMPOSE} stop worker")
    assert services(machine)["worker"]["State"]["ExitCode"] == 0
    try:
        sent = [desk.send(action="buy", quantity="0.01", price="64000") for _ in range(3)]
        sent.append(desk.send(market_position="long", position_size="0.04", price="64100"))
        assert {item["status"] for item in desk.get("signals?limit=50")["items"]} == {"queued"}
    finally:
        output_of(machine, f"{COMPOSE} start worker")
    assert desk.wait_until_decided(*sent)[-1] == "ordered"
    assert desk.position() == Decimal("0.04")
    assert len(desk.get("fills")["items"]) == len(desk.get("orders")["items"])


def test_a_worker_that_is_killed_while_it_trades_doubles_nothing(machine: hosts.Host, desk: Desk) -> None:
    sent = [desk.send(action=("buy", "sell")[number % 2], quantity="0.1", price="64000") for number in range(10)]
    output_of(machine, "kill -9 $(docker inspect --format '{{.State.Pid}}' tradingbot-worker-1)")
    sent += [desk.send(action=("buy", "sell")[number % 2], quantity="0.1", price="64000") for number in range(9)]
    assert set(desk.wait_until_decided(*sent)) == {"ordered"}
    assert len(desk.get("orders")["items"]) == len(desk.get("fills")["items"]) == 19
    assert desk.position() == Decimal("0.1")


def test_orders_go_on_when_redis_dies_and_live_events_catch_up(machine: hosts.Host, https_url: str, desk: Desk) -> None:
    """Killed while alerts come in, and then away."""

    def send(count: int) -> list[str]:
        return [
            desk.send(action=("buy", "sell")[number % 2], quantity="0.01", price="64000") for number in range(count)
        ]

    with live_events(https_url, desk.api_key) as socket:
        sent = send(5)
        output_of(machine, "kill -9 $(docker inspect --format '{{.State.Pid}}' tradingbot-redis-1)")
        sent += send(5)
        output_of(machine, f"{COMPOSE} stop redis")
        try:
            sent += send(5)
            assert set(desk.wait_until_decided(*sent)) == {"ordered"}
            assert desk.position() == Decimal("0.03")
        finally:
            output_of(machine, f"{COMPOSE} start redis")
        seen: list[dict[str, Any]] = []
        while sum(event["type"] == "fill" for event in seen) < len(sent):
            seen.append(json.loads(socket.recv(timeout=TRADED_WITHIN)))
    numbers = [event["sequence"] for event in seen if event["type"] != "health"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_metrics_are_for_the_inside_only(machine: hosts.Host, https_url: str, neighbour: Any) -> None:
    assert "tradingbot_" in output_of(machine, "python3 -", ASK.format(host=slot_address(machine), port=8001))
    worker = output_of(machine, f"{COMPOSE} exec -T worker python -", ASK.format(host="127.0.0.1", port=8002))
    assert "tradingbot_signals_total" in worker
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}, {"Host": "127.0.0.1"}):
        assert call("GET", f"{https_url}/metrics", headers=headers).status_code in (404, 421), headers
    for port in (8001, 8002):
        from_outside = neighbour(["python3", "-c", ASK.format(host=machine.address, port=port)])
        assert "timed out" in from_outside.stderr
