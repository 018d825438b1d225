"""TLS as a client from outside sees it: protocols, ciphers, redirect, host names, key file."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

KEY = "/opt/tradingbot/nginx/tls/live/privkey.pem"


def handshake(url: str, context: ssl.SSLContext, server_name: str | None = None) -> tuple[str | None, str, str | None]:
    """Return protocol, cipher and application protocol of a handshake. Raises ssl.SSLError when it is refused."""
    address = urlsplit(url)
    with (
        socket.create_connection((address.hostname, address.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as secure,
    ):
        cipher = secure.cipher()
        assert cipher
        return secure.version(), cipher[0], secure.selected_alpn_protocol()


def client(version: ssl.TLSVersion | None = None, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """Return a client that speaks only *version* and only *ciphers*, old ones too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version:
        context.minimum_version = version
        context.maximum_version = version
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_protocols_are_refused(https_url: str, version: str) -> None:
    with pytest.raises(ssl.SSLError) as refusal:
        handshake(https_url, client(ssl.TLSVersion[version]))
    # The server said so; the client would have gone on.
    assert refusal.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


@pytest.mark.parametrize(("version", "name"), [("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")])
def test_current_protocols_are_spoken_with_http2(https_url: str, version: str, name: str) -> None:
    spoken, cipher, application = handshake(https_url, client(ssl.TLSVersion[version]))
    assert spoken == name
    assert "GCM" in cipher or "CHACHA20" in cipher
    assert application == "h2"


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE+AES+SHA1", "DHE+AESGCM", "aNULL"])
def test_weak_ciphers_are_refused(https_url: str, ciphers: str) -> None:
    with pytest.raises(ssl.SSLError) as refusal:
        handshake(https_url, client(ssl.TLSVersion.TLSv1_2, f"{ciphers}:@SECLEVEL=0"))
    assert refusal.value.reason in {"SSLV3_ALERT_HANDSHAKE_FAILURE", "SSL/TLS_ALERT_HANDSHAKE_FAILURE"}


def test_plain_http_on_the_tls_port_is_a_bad_request(https_url: str) -> None:
    address = urlsplit(https_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    connection.request("GET", "/api/v1/health")
    answer = connection.getresponse()
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    connection.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http_redirects_to_https(http_url: str, method: str) -> None:
    answer = requests.request(method, f"{http_url}/docs?limit=1", allow_redirects=False, timeout=10)
    assert answer.status_code == 308, "the method must survive"
    target = urlsplit(answer.headers["Location"])
    assert (target.scheme, target.hostname) == ("https", urlsplit(http_url).hostname)
    assert (target.path, target.query) == ("/docs", "limit=1")
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/api/v1/webhooks/tradingview/tbw_0", "/api/v1/signals", "/api/v1/auth/login", "/api/"]
)
def test_the_api_is_not_served_in_clear(http_url: str, path: str) -> None:
    """Nor redirected: that would hide for ever that the token is exposed."""
    answer = requests.post(f"{http_url}{path}", json={}, allow_redirects=False, timeout=10)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "replace the token" in answer.json()["detail"]


def test_the_redirect_leads_to_the_service(http_url: str, https_url: str) -> None:
    answer = requests.get(f"{http_url}/api/v1/health", allow_redirects=False, timeout=10)
    target = urlsplit(answer.headers["Location"])
    assert target.port == urlsplit(https_url).port, "nginx_redirect_port is the port that clients use"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_unknown_host_names_are_not_served(http_url: str, https_url: str, scheme: str) -> None:
    url = {"http": http_url, "https": https_url}[scheme]
    answer = requests.get(
        f"{url}/api/v1/health", headers={"Host": "evil.invalid"}, verify=False, allow_redirects=False, timeout=10
    )
    assert answer.status_code == 421
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "evil.invalid" not in answer.text


def test_the_key_is_for_the_containers_user_alone(host: Any) -> None:
    with host.sudo():
        key = host.file(KEY)
        assert (key.mode, key.uid) == (0o400, 101)
        assert host.file("/opt/tradingbot/nginx/tls").mode == 0o700
        # Nor an account of the host that happens to have the number of the container's user.
        as_101 = "setpriv --reuid=101 --regid=101 --clear-groups"
        assert host.run(f"{as_101} true").rc == 0
        assert host.run(f"{as_101} test -r {KEY}").rc != 0
