"""Bursts against the rate limits: what passes equals the model of nginx's leaky bucket, request by request."""

from __future__ import annotations

import http.client
import json
import re
import select
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.leaky_bucket import LeakyBucket, Volley, admitted_in_each

ATTEMPTS = 6
# nginx reads its clock once for each batch of events, so it may be this far from ours.
CLOCK_SLACK_MS = 15
SERIAL = count(time.time_ns())


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    headers: dict[str, str]
    body: bytes


def milliseconds() -> int:
    """Return a clock that does not go back."""
    return time.monotonic_ns() // 1_000_000


def connect(url: str) -> http.client.HTTPSConnection:
    """Return an open connection that has carried a request already."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = urlsplit(url)
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=20, context=context)
    assert send(connection, "GET", "/api/v1/health").status == 200
    return connection


def send(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> Answer:
    """Send one request on an open connection."""
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return read(connection)


def read(connection: http.client.HTTPConnection) -> Answer:
    """Return the answer to what has been sent."""
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


class Clients:
    """Several connections that send at once."""

    def __init__(self, url: str, number: int = 8) -> None:
        self.connections = [connect(url) for _ in range(number)]
        self.pool = ThreadPoolExecutor(number)

    def volley(self, each: int, request: Callable[[http.client.HTTPConnection], Answer]) -> tuple[Volley, Counter[int]]:
        """Send *each* requests on every connection, check the refusals, and return when and what came back."""
        start = milliseconds()
        sent = self.pool.map(lambda connection: [request(connection) for _ in range(each)], self.connections)
        answers = [answer for batch in sent for answer in batch]
        end = milliseconds() + CLOCK_SLACK_MS
        for answer in answers:
            if answer.status in {429, 503}:
                check_refusal(answer)
        return Volley(len(answers), start, end), Counter(answer.status for answer in answers)

    def close(self) -> None:
        """Close the connections."""
        self.pool.shutdown()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def clients(https_url: str) -> Iterator[Clients]:
    """Eight clients at once; to nginx they are one address."""
    opened = Clients(https_url)
    yield opened
    opened.close()


def check_refusal(answer: Answer) -> None:
    """Check that *answer* is the problem document of an over-limit request."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.body)["status"] == answer.status


def alert() -> bytes:
    """Return an alert that the service has not seen yet."""
    return json.dumps(
        {"symbol": "BTCUSDT", "action": "buy", "price": "1.5", "order_id": f"burst-{next(SERIAL)}"}
    ).encode()


@pytest.fixture(scope="module")
def configured(host: Any) -> dict[str, LeakyBucket]:
    """Rate and burst of each zone, as nginx runs them."""
    text = host.file("/opt/tradingbot/nginx/conf/nginx.conf").content_string
    rates = dict(re.findall(r"zone=(\w+):\w+ rate=(\d+)r/m;", text))
    bursts = dict(re.findall(r"limit_req zone=(\w+) burst=(\d+) nodelay;", text))
    return {zone: LeakyBucket(int(rates[zone]), int(bursts[zone])) for zone in rates}


def test_rates_are_those_of_the_specification(configured: dict[str, LeakyBucket]) -> None:
    assert {zone: bucket.requests_per_minute for zone, bucket in configured.items()} == {
        "api": 60,
        "webhook": 300,
        "webhook_client": 6000,
    }


@pytest.mark.alone
def test_an_api_burst_passes_as_the_model_says(
    clients: Clients, api_key: str, configured: dict[str, LeakyBucket]
) -> None:
    """All at once, and once more after the time in which three and a half requests drain."""
    bucket = configured["api"]

    def request(connection: http.client.HTTPConnection) -> Answer:
        return send(connection, "GET", "/api/v1/signals", X_API_Key=api_key)

    for _ in range(ATTEMPTS):
        time.sleep(bucket.drain_seconds + 1)
        first, answers = clients.volley(bucket.burst // 8 + 3, request)
        time.sleep(max(0.0, first.start_ms / 1000 + 3.5 * bucket.token_seconds - time.monotonic()))
        second, later = clients.volley(1, request)
        try:
            passed = admitted_in_each(bucket.requests_per_minute, bucket.burst, [first, second])
        except ValueError:
            continue
        break
    else:
        pytest.fail(f"no burst of {ATTEMPTS} was fast enough: the last took {first.end_ms - first.start_ms} ms")
    assert passed == [bucket.burst + 1, 3]
    assert answers == {200: passed[0], 429: first.count - passed[0]}
    assert later == {200: passed[1], 429: second.count - passed[1]}


@pytest.mark.alone
def test_a_webhook_burst_passes_as_the_model_says(
    clients: Clients, new_webhook_token: Callable[[], str], configured: dict[str, LeakyBucket]
) -> None:
    """A burst for one token, in less time than one request takes to drain."""
    bucket = configured["webhook"]
    for _ in range(ATTEMPTS):
        path = f"/api/v1/webhooks/tradingview/{new_webhook_token()}"

        def request(connection: http.client.HTTPConnection, path: str = path) -> Answer:
            return send(connection, "POST", path, alert(), Content_Type="application/json")

        sent, answers = clients.volley(bucket.burst // 8 + 2, request)
        try:
            (passed,) = admitted_in_each(bucket.requests_per_minute, bucket.burst, [sent])
        except ValueError:
            continue
        break
    else:
        pytest.fail(f"no burst of {ATTEMPTS} was fast enough: the last took {sent.end_ms - sent.start_ms} ms")
    assert passed == bucket.burst + 1
    assert answers == {202: passed, 503: sent.count - passed}


def test_one_tokens_burst_is_not_anothers(
    https_url: str, new_webhook_token: Callable[[], str], configured: dict[str, LeakyBucket]
) -> None:
    connection = connect(https_url)
    path = "/api/v1/webhooks/tradingview/"
    one, other = new_webhook_token(), new_webhook_token()

    def post(token: str) -> int:
        return send(connection, "POST", path + token, alert(), Content_Type="application/json").status

    deadline = time.monotonic() + 30
    while post(one) != 503:
        assert time.monotonic() < deadline, "the first token never met its limit"
    assert post(other) == 202
    connection.close()


@pytest.mark.alone
def test_made_up_tokens_are_stopped_by_the_senders_address(
    clients: Clients, configured: dict[str, LeakyBucket]
) -> None:
    """Each token has a bucket of its own, and all of them are one client's."""
    bucket = configured["webhook_client"]

    def request(connection: http.client.HTTPConnection) -> Answer:
        token = f"tbw_{next(SERIAL):0>43}"
        return send(
            connection, "POST", f"/api/v1/webhooks/tradingview/{token}", alert(), Content_Type="application/json"
        )

    sent, answers = clients.volley(bucket.burst // 4, request)
    assert set(answers) == {404, 503}
    drained = (sent.end_ms - sent.start_ms) / 1000 / bucket.token_seconds
    assert bucket.burst < answers[404] <= bucket.burst + 1 + drained


def test_few_large_bodies_at_once_and_alerts_beside_them(
    https_url: str, new_webhook_token: Callable[[], str], host: Any
) -> None:
    """Of a client's bodies that do not fit nginx's buffer one too many is sent away; a usual alert is taken in."""
    text = host.file("/opt/tradingbot/nginx/conf/nginx.conf").content_string
    (most,) = set(re.findall(r"limit_conn client_large_bodies (\d+);", text))
    path = f"/api/v1/webhooks/tradingview/{new_webhook_token()}"
    connections = [connect(https_url) for _ in range(int(most) + 1)]
    for connection in connections:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", "60000")
        connection.endheaders(b"x" * 20_000)
    # Which of them it is depends on nginx's workers. The others are cut when they have stalled for ten seconds.
    answered, _, _ = select.select([connection.sock for connection in connections], [], [], 8)
    (refused,) = [connection for connection in connections if connection.sock in answered]
    check_refusal(read(refused))
    usual = connect(https_url)
    assert send(usual, "POST", path, alert(), Content_Type="application/json").status == 202
    for connection in [*connections, usual]:
        connection.close()


def test_health_has_no_limit(https_url: str, configured: dict[str, LeakyBucket]) -> None:
    connection = connect(https_url)
    number = 3 * (configured["api"].burst + 1)
    statuses = [send(connection, "GET", "/api/v1/health").status for _ in range(number)]
    connection.close()
    assert statuses == [200] * number
