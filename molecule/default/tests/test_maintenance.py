"""Maintenance as nginx does it: closed to all but alerts, with a page for people, and not for a play to switch."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.stack.host import COMPOSE
from tests.stack.plays import apply_role

LIVE = "/opt/tradingbot/nginx/live/maintenance.conf"


def switch(host: Any, value: int) -> str:
    """Switch maintenance on (1) or off (0); return what nginx's script says."""
    with host.sudo():
        line = f'map "" $maintenance {{ default {value}; }}'
        assert host.run(f"printf '%s\\n' '{line}' > {LIVE}.new && mv {LIVE}.new {LIVE}").rc == 0
        return str(host.check_output(f"{COMPOSE} exec -T nginx sh /etc/tradingbot/nginx/apply.sh"))


def ask(method: str, url: str, **options: Any) -> requests.Response:
    """Send one request; the certificate is nobody's."""
    return requests.request(method, url, verify=False, timeout=20, **options)


@pytest.fixture(scope="class")
def maintenance(host: Any) -> Iterator[None]:
    """Maintenance is on for the tests of a class."""
    assert switch(host, 1).endswith(" 1")
    yield
    assert switch(host, 0).endswith(" 0")


@pytest.mark.usefixtures("maintenance")
class TestMaintenance:
    """What the outside gets."""

    @pytest.mark.parametrize("path", ["/", "/docs", "/api/v1/signals", "/api/v1/ws", "/nothing-here"])
    def test_programs_get_a_problem_that_says_when_to_come_back(self, https_url: str, path: str) -> None:
        answer = ask("GET", https_url + path)
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "300"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "maintenance" in answer.json()["detail"]

    @pytest.mark.parametrize("path", ["/", "/api/v1/signals"])
    def test_people_get_a_page(self, https_url: str, path: str) -> None:
        answer = ask("GET", https_url + path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert answer.status_code == 503
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["Retry-After"] == "300"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<h1>Down for maintenance</h1>" in answer.text
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["style-src"] == "'unsafe-inline'"
        assert "script-src" not in policy

    def test_a_form_that_is_sent_gets_a_problem(self, https_url: str) -> None:
        answer = ask("POST", f"{https_url}/api/v1/strategies", headers={"Accept": "text/html"}, data={"name": "x"})
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"

    def test_alerts_are_taken_in(self, https_url: str, new_webhook_token: Callable[[], str]) -> None:
        alert = {"symbol": "BTCUSDT", "action": "buy", "price": "1.5", "order_id": uuid.uuid4().hex}
        address = f"{https_url}/api/v1/webhooks/tradingview/{new_webhook_token()}"
        assert ask("POST", address, json=alert, headers={"Accept": "text/html"}).status_code == 202

    @pytest.mark.parametrize("path", ["/api/v1/health", "/static/index.html"])
    def test_health_and_static_files_are_served(self, https_url: str, path: str) -> None:
        assert ask("GET", https_url + path).status_code == 200

    @pytest.mark.parametrize("path", ["/metrics", "/api/v1/health/ready"])
    def test_the_inside_is_as_closed_as_ever(self, https_url: str, path: str) -> None:
        assert ask("GET", https_url + path).status_code == 404

    def test_a_run_of_the_role_does_not_end_it(self, host: Any, https_url: str) -> None:
        done = apply_role(host, "nginx")
        assert "changed=0" in done, done
        assert ask("GET", f"{https_url}/api/v1/signals").status_code == 503


def test_after_it_all_is_open(host: Any, https_url: str) -> None:
    assert json.loads(ask("GET", f"{https_url}/api/v1/signals").text)["status"] in {401, 429}
    with host.sudo():
        configuration = host.check_output(f"{COMPOSE} exec -T nginx curl -s http://127.0.0.1:8081/configuration")
    assert configuration.endswith(" 0")
