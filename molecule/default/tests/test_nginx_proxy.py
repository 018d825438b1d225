"""What nginx does with requests and answers on their way."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests

from tests.stack.api import live_events
from tests.stack.host import COMPOSE, NGINX_LOG

WEBHOOKS = "/api/v1/webhooks/tradingview"
SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def no_verification() -> ssl.SSLContext:
    """Return a client's context for a self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def get(url: str, **options: Any) -> requests.Response:
    """Send a GET; an API limit that other tests have used up is waited for."""
    for _ in range(30):
        answer = requests.get(url, verify=False, timeout=20, **options)
        if answer.status_code != 429:
            return answer
        time.sleep(int(answer.headers["Retry-After"]))
    raise AssertionError("still over the limit after 30 attempts")


def body_as_sent(url: str, path: str, **headers: str) -> tuple[bytes, http.client.HTTPMessage]:
    """Return a body as it came over the line, and the headers."""
    address = urlsplit(url)
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=20, context=no_verification())
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    assert answer.status == 200
    body = answer.read()
    connection.close()
    return body, answer.headers


class Answer(NamedTuple):
    """What came back for a request line."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def send_line(url: str, line: str) -> Answer:
    """Send a request line as it is, on a connection of its own, and return the answer."""
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port), timeout=20) as plain:
        connection = no_verification().wrap_socket(plain)
        connection.sendall(f"{line}\r\nHost: {address.netloc}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return Answer(answer.status, answer.headers, answer.read())


def logs(host: Any) -> str:
    """Return all that nginx wrote, access and errors."""
    with host.sudo():
        return str(host.check_output(f"{NGINX_LOG}; {COMPOSE} logs nginx"))


def check_security_headers(headers: Any) -> None:
    """Check the headers that every answer has."""
    assert {name: headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "default-src" in headers["Content-Security-Policy"]
    assert "camera=()" in headers["Permissions-Policy"]
    assert re.fullmatch(r"[0-9a-f]{32}", headers["X-Request-ID"]), "set once, by nginx"
    assert headers["Server"] == "nginx", "no version"
    assert "X-XSS-Protection" not in headers


@pytest.fixture
def stopped_backend(host: Any, https_url: str) -> Iterator[None]:
    """The backend that gets requests is away during the test, and back after it."""
    with host.sudo():
        slot = host.check_output(f"{COMPOSE} exec -T nginx curl -s http://127.0.0.1:8081/configuration").split()[1]
        assert host.run(f"{COMPOSE} stop --timeout 5 {slot}").rc == 0
    try:
        yield
    finally:
        with host.sudo():
            assert host.run(f"{COMPOSE} start {slot}").rc == 0
        deadline = time.monotonic() + 90
        while requests.get(f"{https_url}/api/v1/health", verify=False, timeout=20).status_code != 200:
            assert time.monotonic() < deadline, "the backend did not come back"
            time.sleep(0.5)


def test_json_is_compressed_by_at_least_40_percent(https_url: str) -> None:
    plain, _ = body_as_sent(https_url, "/openapi.json", Accept_Encoding="identity")
    packed, headers = body_as_sent(https_url, "/openapi.json", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in headers["Vary"]
    assert len(packed) <= 0.6 * len(plain), f"{len(plain)} → {len(packed)} bytes"


def test_a_websocket_outlives_the_proxys_timeouts(host: Any, https_url: str, api_key: str) -> None:
    text = host.file("/opt/tradingbot/nginx/conf/nginx.conf").content_string
    times = re.findall(r"^    proxy_read_timeout (\d+)s;", text, re.MULTILINE)
    assert len(times) == 1
    assert int(times[0]) <= 15, "the scenario lowers nginx_proxy_read_timeout, or this test would take long"
    with live_events(https_url, api_key, ping_interval=None) as socket:
        time.sleep(int(times[0]) + 3)
        assert socket.ping().wait(timeout=10), "the connection still carries messages"


@pytest.mark.parametrize("path", ["/", "/static/index.html"])
def test_static_files_are_cacheable(https_url: str, path: str) -> None:
    answer = get(https_url + path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert re.fullmatch(r"max-age=[1-9]\d+", answer.headers["Cache-Control"])
    check_security_headers(answer.headers)
    again = get(https_url + path, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["/api/v1/health", "/api/v1/nothing-here", "/nothing-here", "/static/nothing-here.css"]
)
def test_every_answer_has_the_security_headers(https_url: str, path: str) -> None:
    answer = get(https_url + path)
    assert answer.status_code == (200 if path == "/api/v1/health" else 404)
    check_security_headers(answer.headers)
    if answer.status_code == 404:
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert answer.json()["status"] == 404


@pytest.mark.parametrize(
    "path",
    ["/metrics", "//metrics", "/%6detrics", "/static/../metrics", "/api/v1/health/ready", "/api/v1/health%2Fready"],
)
def test_the_inside_is_not_served_to_the_outside(https_url: str, path: str) -> None:
    address = urlsplit(https_url)
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=20, context=no_verification())
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 404
    assert json.loads(body)["detail"] == "Nothing is served at this address.", "nginx said so, not the backend"


def test_docs_load_from_here_alone_and_the_api_loads_nothing(https_url: str) -> None:
    policy = get(f"{https_url}/docs").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' data:;")
    script = get(f"{https_url}/docs/swagger-ui-bundle.js")
    assert script.status_code == 200
    assert re.fullmatch(r"max-age=[1-9]\d+", script.headers["Cache-Control"])
    assert get(f"{https_url}/api/v1/health").headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_tokens_are_in_no_log(host: Any, https_url: str, http_url: str, new_webhook_token: Callable[[], str]) -> None:
    """Neither of an accepted alert, nor of one over the limit, too large, malformed, or on the wrong port or path."""
    token = new_webhook_token()
    path = f"{https_url}{WEBHOOKS}/{token}"
    session = requests.Session()
    session.verify = session.trust_env = False
    assert session.post(path, data=b"x" * 65_537, timeout=20).status_code == 413
    session.post(f"{https_url}{WEBHOOKS}/%0A{token}", json={}, timeout=20)
    for variant in ("/extra", "?query=1", "/%2e"):
        session.post(path + variant, json={}, timeout=20)
    session.get(f"{https_url}/API/v1/Webhooks/tradingview/{token}", timeout=20)
    for mistyped in (
        f"/api/v1/webhooks/{token}",
        f"/webhooks/{token}",
        f"/api/v1/webhooks/tradingview{token}",
        f"/%0A{token}",
    ):
        session.post(https_url + mistyped, json={}, timeout=20)
        session.post(http_url + mistyped, json={}, timeout=20)
    for target in (f"{WEBHOOKS}/{token}%00", f"{WEBHOOKS}/{token}/%zz", f"/../{token}", f"/{token}{'x' * 40_000}"):
        assert send_line(https_url, f"GET {target} HTTP/1.1").status in {400, 414}
    session.get(f"{https_url}/api/v1/health", headers={"User-Agent": f"curl {token}"}, timeout=20)
    deadline = time.monotonic() + 30
    while session.post(path, json={}, timeout=20).status_code != 503:
        assert time.monotonic() < deadline, "the token never met its limit"
    written = logs(host)
    assert f'"path":"{WEBHOOKS}/***"' in written
    assert '"status":413' in written
    assert '"limit":"REJECTED"' in written
    assert '"path":"/webhooks/***"' in written
    assert token not in written
    with host.sudo():
        backend = host.check_output(f"{COMPOSE} logs --no-log-prefix 2>&1")
    assert '"path":"/api/v1/webhooks/tradingviewtbw_***"' in backend
    assert token not in backend


MALFORMED = {
    "GET /%zz HTTP/1.1": 400,
    "GET /%00 HTTP/1.1": 400,
    "GET /../x HTTP/1.1": 400,
    "get / HTTP/1.1": 400,
    f"GET /{'x' * 9_000} HTTP/1.1": 414,
    f"GET /{'x' * 40_000} HTTP/1.1": 414,
    "garbage": 400,
    "GET / HTTP/9.9": 505,
}


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: f"{line[:12]}-{len(line)}")
def test_a_malformed_request_line_is_a_problem_of_its_sender(https_url: str, line: str) -> None:
    for _ in range(30):
        answer = send_line(https_url, line)
        if answer.status != 429:
            break
        time.sleep(int(answer.headers["Retry-After"]))
    assert answer.status == MALFORMED[line]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.body)["status"] == answer.status
    check_security_headers(answer.headers)


def test_malformed_request_lines_are_limited(https_url: str) -> None:
    for _ in range(100):
        answer = send_line(https_url, "GET /%zz HTTP/1.1")
        if answer.status == 429:
            break
        assert answer.status == 400
    assert answer.status == 429
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/signals", "/api/v1/nothing-here", "/nothing-here"])
def test_what_is_for_one_moment_is_not_stored(https_url: str, path: str) -> None:
    answer = get(https_url + path)
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_body_over_64_kib_is_refused(https_url: str, new_webhook_token: Callable[[], str]) -> None:
    answer = requests.post(f"{https_url}{WEBHOOKS}/{new_webhook_token()}", data=b" " * 65_537, verify=False, timeout=20)
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    check_security_headers(answer.headers)


@pytest.mark.usefixtures("stopped_backend")
def test_a_backend_that_is_away_is_a_problem_that_passes(host: Any, https_url: str) -> None:
    token = "whk_" + "0123456789abcdef" * 2
    for answer in (
        get(f"{https_url}/api/v1/signals"),
        requests.post(f"{https_url}{WEBHOOKS}/{token}", json={}, verify=False, timeout=20),
    ):
        assert answer.status_code in {502, 503, 504}, "TradingView sends again after a 5xx"
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["status"] == answer.status_code
        check_security_headers(answer.headers)
    assert token not in logs(host)


def test_the_access_log_is_json_with_request_ids(host: Any, https_url: str) -> None:
    answer = get(f"{https_url}/api/v1/health", headers={"X-Request-ID": "mine", "User-Agent": 'quote " and \\'})
    request_id = answer.headers["X-Request-ID"]
    assert request_id != "mine"
    entries = [json.loads(line) for line in logs(host).splitlines() if line.startswith("{")]
    found = [entry for entry in entries if entry["request_id"] == request_id]
    assert len(found) == 1
    assert found[0]["path"] == "/api/v1/health"
    assert found[0]["user_agent"] == 'quote " and \\'
    assert float(found[0]["upstream_seconds"]) >= 0
    assert found[0]["backend"] in {"backend-blue", "backend-green"}
