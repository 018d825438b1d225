"""Services that die come back, a reboot brings all back, an outage is named, and no alert is lost."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.stack.api import call
from tests.stack.host import COMPOSE, active_slot, output_of, services, slot_address, wait_until, worker_processes
from tests.testbed import hosts

pytestmark = pytest.mark.alone
BACK_WITHIN = 5.0
# Runs on the host, so that no connection from here adds to the time: kills, then asks until the new one serves.
KILL = """
import json, os, signal, ssl, subprocess, sys, time, urllib.request
service, victim, slot, address = sys.argv[1:]
name = f"tradingbot-{slot if service == 'backend' else service}-1"
redis = 'REDISCLI_AUTH="$(cat /run/secrets/redis_health_password)" redis-cli --user health --no-auth-warning ping'
commands = {
    "postgres": ["docker", "exec", name, "pg_isready", "-q", "-h", "127.0.0.1"],
    "worker": ["docker", "exec", name, "tradingbot", "health", "worker"],
    "redis": ["docker", "exec", name, "sh", "-c", redis + " | grep -qx PONG"],
}
urls = {"backend": f"http://{address}:8001/api/v1/health", "nginx": "https://127.0.0.1/api/v1/health"}
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

def serves():
    if service in commands:
        return subprocess.run(commands[service], capture_output=True).returncode == 0
    try:
        with urllib.request.urlopen(urls[service], timeout=2, context=context) as answer:
            return answer.status == 200
    except OSError:
        return False

def state():
    return json.loads(subprocess.check_output(["docker", "inspect", name]))[0]["State"]

before = state()
first = before["Pid"]
with open(f"/proc/{first}/task/{first}/children") as children:
    child = children.read().split()
with open(f"/proc/{first}/comm") as comm:
    has_init = comm.read().strip() in ("docker-init", "tini")
pid = int(child[0]) if has_init and victim == "service" else first
assert serves()
start = time.monotonic()
os.kill(pid, signal.SIGKILL)
while time.monotonic() - start < 60:
    if serves() and state()["StartedAt"] != before["StartedAt"]:
        break
    time.sleep(0.02)
print(f"{time.monotonic() - start:.2f}")
"""


def ready(machine: hosts.Host) -> tuple[int, dict[str, str]]:
    """Return what the backend says of itself and its servers to those inside."""
    program = """
import json, sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(f"http://{sys.argv[1]}:8001/api/v1/health/ready", timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, json.load(answer)["checks"]]))
"""
    status, checks = json.loads(output_of(machine, f"python3 - {slot_address(machine)}", program))
    return status, checks


def all_ok(machine: hosts.Host) -> bool:
    """Tell whether the backend can use all of its servers."""
    status, checks = ready(machine)
    return status == 200 and set(checks.values()) == {"ok"}


@pytest.fixture(scope="module")
def webhook(https_url: str, new_webhook_token: Callable[[], str]) -> str:
    """A webhook's whole address."""
    return f"{https_url}/api/v1/webhooks/tradingview/{new_webhook_token()}"


def send_alert(webhook: str) -> requests.Response:
    """Send an alert that is new."""
    return call("POST", webhook, json={"ticker": "BTCUSDT", "action": "buy", "order_id": f"order {time.time_ns()}"})


@pytest.fixture(scope="module")
def earlier(webhook: str) -> str:
    """The identity of a signal that was stored before anything went wrong."""
    answer = send_alert(webhook)
    assert answer.status_code == 202
    return str(answer.json()["id"])


def is_kept(https_url: str, api_key: str, identity: str) -> bool:
    """Tell whether the signal is among the newest that the API shows."""
    answer = call("GET", f"{https_url}/api/v1/signals?limit=50", headers={"X-API-Key": api_key})
    return answer.status_code == 200 and identity in {item["id"] for item in answer.json()["items"]}


def is_decided(https_url: str, api_key: str, identity: str) -> bool:
    """Tell whether a worker has taken up the signal."""
    answer = call("GET", f"{https_url}/api/v1/signals/{identity}", headers={"X-API-Key": api_key})
    return answer.status_code == 200 and answer.json()["status"] != "queued"


@pytest.fixture
def stopped(machine: hosts.Host, request: pytest.FixtureRequest) -> Iterator[str]:
    """A service that is away during the test."""
    service = str(request.param)
    output_of(machine, f"{COMPOSE} stop {service}")
    try:
        yield service
    finally:
        output_of(machine, f"{COMPOSE} start {service}")


@pytest.mark.parametrize("victim", ["service", "container"])
@pytest.mark.parametrize("service", ["postgres", "redis", "backend", "worker", "nginx"])
def test_a_killed_service_is_back_within_five_seconds(
    machine: hosts.Host, https_url: str, api_key: str, webhook: str, earlier: str, service: str, victim: str
) -> None:
    """Killed is the service's own process, or the first of the container and so all of them at once."""
    slot = f"{active_slot(machine)} {slot_address(machine)}"
    seconds = float(output_of(machine, f"python3 - {service} {victim} {slot}", KILL, seconds=120))
    print(f"\n{service} ({victim}): back after {seconds} s")
    assert seconds <= BACK_WITHIN
    wait_until(lambda: is_kept(https_url, api_key, earlier), 10, "the API serves what it had")
    wait_until(lambda: all_ok(machine), 10, "the backend has found its servers again")
    answer = send_alert(webhook)
    assert answer.status_code == 202
    wait_until(lambda: is_decided(https_url, api_key, answer.json()["id"]), 20, "the worker has, too")


def test_a_killed_worker_is_replaced(machine: hosts.Host, https_url: str) -> None:
    """Nobody outside notices."""
    wait_until(lambda: len(worker_processes(machine)) == 4, 20, "four workers")
    before = worker_processes(machine)
    output_of(machine, f"kill -9 {before[0]}")
    statuses = set()

    def replaced() -> bool:
        statuses.add(call("GET", f"{https_url}/api/v1/health").status_code)
        now = worker_processes(machine)
        return len(now) == 4 and before[0] not in now

    took = wait_until(replaced, 45, "four workers again")
    print(f"\nworker: replaced after {took:.1f} s")
    assert statuses == {200}


@pytest.mark.parametrize("stopped", ["postgres"], indirect=True)
def test_without_the_database_an_alert_is_asked_for_again(
    machine: hosts.Host, https_url: str, webhook: str, stopped: str
) -> None:
    status, checks = ready(machine)
    assert status == 503
    assert checks == {"postgresql": "does not answer", "redis": "ok", "schema": "does not answer"}
    start = time.monotonic()
    answer = send_alert(webhook)
    assert time.monotonic() - start < 3, "TradingView gives up after 3 s"
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    assert call("GET", f"{https_url}/api/v1/health").status_code == 200
    output_of(machine, f"{COMPOSE} start {stopped}")
    took = wait_until(lambda: send_alert(webhook).status_code == 202, 15, "alerts are taken in again")
    print(f"\nPostgreSQL started again: alerts are taken in after {took:.1f} s")
    assert ready(machine)[0] == 200


@pytest.mark.parametrize("stopped", ["redis"], indirect=True)
def test_without_redis_an_alert_is_kept_all_the_same(
    machine: hosts.Host, https_url: str, webhook: str, api_key: str, stopped: str
) -> None:
    status, checks = ready(machine)
    assert status == 200
    assert checks == {"postgresql": "ok", "redis": "does not answer", "schema": "ok"}
    answer = send_alert(webhook)
    assert answer.status_code == 202
    assert is_kept(https_url, api_key, answer.json()["id"])
    output_of(machine, f"{COMPOSE} start {stopped}")
    took = wait_until(lambda: all_ok(machine), 15, "ready again")
    print(f"\nRedis started again: ready after {took:.1f} s")


def test_a_reboot_brings_all_back(
    machine: hosts.Host, https_url: str, api_key: str, webhook: str, earlier: str
) -> None:
    answer = send_alert(webhook)
    assert answer.status_code == 202
    booted = output_of(machine, "cat /proc/1/stat").split()[21]
    start = time.monotonic()
    hosts.reboot(machine.name)
    reached = time.monotonic() - start
    assert output_of(machine, "cat /proc/1/stat").split()[21] != booted

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def serves() -> bool:
        try:
            with urllib.request.urlopen(f"{https_url}/api/v1/health", timeout=2, context=context) as health:
                return bool(health.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    wait_until(serves, 60, "HTTPS serves")
    served = time.monotonic() - start
    wait_until(
        lambda: all(
            found["State"].get("Health", {}).get("Status") == "healthy" for found in services(machine).values()
        ),
        90,
        "all services healthy",
    )
    healthy = time.monotonic() - start
    print(f"\nreboot: SSH after {reached:.1f} s, HTTPS after {served:.1f} s, all healthy after {healthy:.1f} s")
    assert ready(machine) == (200, {"postgresql": "ok", "redis": "ok", "schema": "ok"})
    for identity in (earlier, str(answer.json()["id"])):
        assert is_kept(https_url, api_key, identity)
    answer = send_alert(webhook)
    assert answer.status_code == 202
    wait_until(lambda: is_decided(https_url, api_key, answer.json()["id"]), 20, "the worker goes on")
    assert output_of(machine, "systemctl is-active docker tradingbot-firewall").split() == ["active", "active"]
    assert output_of(machine, "systemctl --failed --no-legend --plain") == ""
