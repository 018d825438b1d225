"""Bursts against the rate limits: what passes equals the model of nginx's leaky bucket, request by request."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest
from leaky_bucket import LeakyBucket, Volley, admitted_in_each

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
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def volley(number: int, request: Callable[[], Answer]) -> tuple[Volley, list[Answer]]:
    """Send *number* requests one after the other."""
    start = milliseconds()
    answers = [request() for _ in range(number)]
    return Volley(number, start, milliseconds() + CLOCK_SLACK_MS), answers


def alert() -> bytes:
    """Return an alert that the service has not seen yet."""
    return json.dumps({"symbol": "BTCUSDT", "action": "buy", "price": "1.5", "order_id": f"burst-{next(SERIAL)}"}).encode()


@pytest.fixture(scope="module")
def configured(host: Any) -> dict[str, LeakyBucket]:
    """Rate and burst of each zone, as nginx runs them."""
    text = host.file("/opt/tradingbot/nginx/conf/nginx.conf").content_string
    rates = dict(re.findall(r"zone=(\w+):\w+ rate=(\d+)r/m;", text))
    bursts = dict(re.findall(r"limit_req zone=(\w+) burst=(\d+) nodelay;", text))
    return {zone: LeakyBucket(int(rates[zone]), int(bursts[zone])) for zone in rates}


def check_refusal(answer: Answer, status: int) -> None:
    """Check that *answer* is the problem document of an over-limit request."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.body)["status"] == status


def test_rates_are_those_of_the_specification(configured: dict[str, LeakyBucket]) -> None:
    assert {zone: bucket.requests_per_minute for zone, bucket in configured.items()} == {"api": 60, "webhook": 300}


def test_an_api_burst_passes_as_the_model_says(
    https_url: str, api_key: str, configured: dict[str, LeakyBucket]
) -> None:
    bucket = configured["api"]
    connection = connect(https_url)

    def request() -> Answer:
        return send(connection, "GET", "/api/v1/signals", X_API_Key=api_key)

    for _ in range(ATTEMPTS):
        time.sleep(bucket.drain_seconds + 1)
        first, answers = volley(bucket.burst + 11, request)
        time.sleep(max(0.0, (first.start_ms / 1000 + 3.5 * bucket.token_seconds) - time.monotonic()))
        second, later = volley(6, request)
        try:
            expected = admitted_in_each(bucket.requests_per_minute, bucket.burst, [first, second])
        except ValueError:
            continue
        break
    else:
        pytest.fail(f"no burst was fast enough in {ATTEMPTS} attempts: the last took {first.end_ms - first.start_ms} ms")
    connection.close()
    assert expected == [bucket.burst + 1, 3]
    for number, sent in zip(expected, (answers, later), strict=True):
        assert [answer.status for answer in sent] == [200] * number + [429] * (len(sent) - number)
        for answer in sent[number:]:
            check_refusal(answer, 429)


def test_a_webhook_burst_passes_as_the_model_says(
    https_url: str, new_webhook_token: Callable[[], str], configured: dict[str, LeakyBucket]
) -> None:
    """One burst for one token on several connections at once: in the time of one request none drains."""
    bucket = configured["webhook"]
    workers, each = 8, (bucket.burst + 10) // 8 + 1
    connections = [connect(https_url) for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(ATTEMPTS):
            path = f"/api/v1/webhooks/tradingview/{new_webhook_token()}"

            def burst(connection: http.client.HTTPConnection, path: str = path) -> list[Answer]:
                return [send(connection, "POST", path, alert(), Content_Type="application/json") for _ in range(each)]

            start = milliseconds()
            answers = [answer for sent in pool.map(burst, connections) for answer in sent]
            sent = Volley(workers * each, start, milliseconds() + CLOCK_SLACK_MS)
            try:
                expected = admitted_in_each(bucket.requests_per_minute, bucket.burst, [sent])[0]
            except ValueError:
                continue
            break
        else:
            pytest.fail(f"no burst was fast enough in {ATTEMPTS} attempts: the last took {sent.end_ms - start} ms")
    for connection in connections:
        connection.close()
    assert expected == bucket.burst + 1
    accepted = [answer for answer in answers if answer.status == 202]
    refused = [answer for answer in answers if answer.status == 503]
    assert (len(accepted), len(refused)) == (expected, len(answers) - expected)
    for answer in refused:
        check_refusal(answer, 503)


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


def test_health_has_no_limit(https_url: str, configured: dict[str, LeakyBucket]) -> None:
    connection = connect(https_url)
    number = 3 * (configured["api"].burst + 1)
    _, answers = volley(number, lambda: send(connection, "GET", "/api/v1/health"))
    connection.close()
    assert [answer.status for answer in answers] == [200] * number
