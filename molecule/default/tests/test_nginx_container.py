"""The container, and how a new configuration gets into it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.stack.host import COMPOSE, inspect
from tests.stack.plays import apply_role

CONFIGURATION = "/opt/tradingbot/nginx/conf/nginx.conf"
LIVE = "/opt/tradingbot/nginx/live"
APPLY = "sh /etc/tradingbot/nginx/apply.sh"


def inside(host: Any, command: str) -> Any:
    """Run *command* in the container as its user."""
    with host.sudo():
        return host.run(f"{COMPOSE} exec -T nginx {command}")


def test_its_status_is_for_itself_alone(host: Any, https_url: str) -> None:
    assert "Active connections" in inside(host, "curl -s http://127.0.0.1:8081/status").stdout
    published = inspect(host, "nginx")["NetworkSettings"]["Ports"]
    assert {port for port, bindings in published.items() if bindings} == {"8080/tcp", "8443/tcp"}
    assert requests.get(f"{https_url}/status", verify=False, timeout=20).status_code == 404


def test_it_answers_while_nobody_reads_what_containers_print(host: Any, https_url: str) -> None:
    """As many requests as in three minutes with four alerts a second, with the engine stopped."""
    client = requests.Session()
    client.verify = client.trust_env = False
    with host.sudo():
        host.run_expect([0], "systemctl stop docker.socket docker.service")
        try:
            answers = [client.get(f"{https_url}/static/index.html", timeout=10) for _ in range(720)]
        finally:
            host.run_expect([0], "systemctl start docker.socket docker.service")
        assert {answer.status_code for answer in answers} == {200}
        assert max(answer.elapsed.total_seconds() for answer in answers) < 3
        asked = {answer.headers["X-Request-ID"] for answer in answers}
        logged = host.check_output("journalctl --quiet --output=cat --identifier=tradingbot_nginx --lines=5000")
        assert asked <= {json.loads(line).get("request_id") for line in logged.splitlines() if line.startswith("{")}


def test_a_new_configuration_is_a_reload(host: Any, https_url: str) -> None:
    before = inspect(host, "nginx")
    client = requests.Session()
    client.verify = client.trust_env = False
    assert client.get(f"{https_url}/static/index.html", timeout=20).status_code == 200
    try:
        done = apply_role(host, "nginx", nginx_static_max_age=4321)
        assert "failed=0" in done, done
        answer = client.get(f"{https_url}/static/index.html", timeout=20)
        assert answer.headers["Cache-Control"] == "max-age=4321"
    finally:
        restored = apply_role(host, "nginx")
    assert "failed=0" in restored, restored
    after = inspect(host, "nginx")
    for key in ("Id", "Created"):
        assert after[key] == before[key], "the container was not replaced"
    for key in ("Pid", "StartedAt"):
        assert after["State"][key] == before["State"][key], "nor was its first process"
    assert "max-age=4321" not in client.get(f"{https_url}/static/index.html", timeout=20).headers["Cache-Control"]


def test_a_bad_configuration_does_not_land(host: Any, https_url: str) -> None:
    landed = host.file(CONFIGURATION).sha256sum
    refused = apply_role(host, "nginx", nginx_proxy_read_timeout="soon")
    assert "failed=1" in refused
    assert "directive invalid value in" in refused, "nginx's own message is shown"
    assert host.file(CONFIGURATION).sha256sum == landed
    assert requests.get(f"{https_url}/api/v1/health", verify=False, timeout=20).status_code == 200


def test_a_configuration_that_landed_without_a_reload_is_loaded_by_the_next_run(host: Any) -> None:
    """As after a play that was killed in between."""
    running = inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout.strip()
    mark, other = running.split()[0], "0" * 64
    with host.sudo():
        assert host.run(f"sed -i.killed s/{mark}/{other}/ {CONFIGURATION}").rc == 0
        assert inside(host, "nginx -q -c /etc/tradingbot/nginx/nginx.conf -s reload").rc == 0
        assert host.run(f"mv {CONFIGURATION}.killed {CONFIGURATION}").rc == 0
    done = apply_role(host, "nginx")
    assert "failed=0" in done, done
    assert inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout.strip() == running


def test_it_asks_the_backend_that_gets_requests(host: Any) -> None:
    assert json.loads(inside(host, "curl -s --fail http://127.0.0.1:8081/upstream").stdout)["status"] == "healthy"


def test_what_runs_already_is_not_loaded_again(host: Any) -> None:
    running = inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout
    assert inside(host, APPLY).stdout == f"current: {running}"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("upstream.conf", 'map "" $active_backend { default backend-red; }', "has no such upstream"),
        ("upstream.conf", 'map "" $active_backend {', "must have exactly one line"),
        ("upstream.conf", 'map "" $active_backend { default backend-blue; }\nmore on;', "must have exactly one line"),
        ("maintenance.conf", 'map "" $maintenance { default 2; }', "write 0 or 1"),
        ("maintenance.conf", "", "must have exactly one line"),
    ],
)
def test_what_makes_no_sense_is_not_loaded(host: Any, https_url: str, file: str, content: str, said: str) -> None:
    running = inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout
    with host.sudo():
        assert host.run(f"cp -p {LIVE}/{file} {LIVE}/{file}.kept").rc == 0
        try:
            assert host.run(f"printf '%s\\n' '{content}' > {LIVE}/{file}").rc == 0
            refused = inside(host, APPLY)
        finally:
            assert host.run(f"mv {LIVE}/{file}.kept {LIVE}/{file}").rc == 0
    assert refused.rc != 0
    assert said in refused.stderr
    assert inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout == running
    assert requests.get(f"{https_url}/api/v1/health", verify=False, timeout=20).status_code == 200


def test_what_nginx_does_not_accept_is_not_loaded(host: Any, https_url: str) -> None:
    running = inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout
    with host.sudo():
        assert (
            host.run(f"sed -i.kept -e 's/^# configuration ./# configuration x/' -e 's/^pid/odd/' {CONFIGURATION}").rc
            == 0
        )
        try:
            refused = inside(host, APPLY)
        finally:
            assert host.run(f"mv {CONFIGURATION}.kept {CONFIGURATION}").rc == 0
    assert refused.rc != 0
    assert 'unknown directive "odd"' in refused.stderr
    assert "goes on with what it runs" in refused.stderr
    assert inside(host, "curl -s http://127.0.0.1:8081/configuration").stdout == running
    assert requests.get(f"{https_url}/api/v1/health", verify=False, timeout=20).status_code == 200
