"""From a neighbour on the host's network only the web answers, whatever containers publish."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.stack.host import COMPOSE, wait_until

PUBLISHED = 9999
SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reaches(port):
    try:
        socket.create_connection((sys.argv[1], port), 2).close()
    except TimeoutError:
        return "silent"
    except ConnectionRefusedError:
        return "closed"
    return "open"

ports = [int(port) for port in sys.argv[2:]]
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(dict(zip(ports, pool.map(reaches, ports)))))
"""
IMAGE = "python:3.13-slim"
# Opens connections at once, and counts those that come about within half a second: before a system sends its SYN again.
CROWD = """
import selectors, socket, sys, time

address, count = sys.argv[1], int(sys.argv[2])
waiting = selectors.DefaultSelector()
for _ in range(count):
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex((address, 443))
    waiting.register(connection, selectors.EVENT_WRITE)
time.sleep(0.5)
print(len(waiting.select(0)))
"""


def scan(neighbour: Any, address: str, *ports: int) -> dict[int, str]:
    """Return whether each of *ports* is open, closed (refused) or silent (dropped) for the neighbour."""
    answer = neighbour(["python3", "-c", SCAN, address, *map(str, ports)])
    assert answer.returncode == 0, answer.stderr
    return {int(port): state for port, state in json.loads(answer.stdout).items()}


NAMESPACE = """
ip netns add metadata
ip link add metadata0 type veth peer name eth0 netns metadata
ip address add 169.254.169.253/30 dev metadata0
ip link set metadata0 up
ip -n metadata address add 169.254.169.254/30 dev eth0
ip -n metadata link set eth0 up
ip -n metadata route add default via 169.254.169.253
"""


@pytest.fixture
def metadata(host: Any) -> Iterator[str]:
    """Yield an address that cloud providers have their metadata at; a namespace of the host's answers on 80 and 53."""
    for line in NAMESPACE.strip().splitlines():
        host.run_expect([0], line)
    for port in (53, 80):
        unit = f"systemd-run --unit=metadata-{port} ip netns exec metadata python3 -m http.server"
        host.run_expect([0], f"{unit} {port}")
    yield "169.254.169.254"
    host.run_expect([0], "systemctl stop metadata-53 metadata-80")
    host.run_expect([0], "ip netns delete metadata")


def test_containers_do_not_reach_what_tells_credentials_of_the_host(host: Any, metadata: str) -> None:
    look = f"-c {shlex.quote(SCAN)} {metadata} 80 53"
    everything = {"80": "open", "53": "open"}
    wait_until(lambda: json.loads(host.check_output(f"python3 {look}")) == everything, 20, "the host reaches it")
    scanned = host.check_output(f"{COMPOSE} exec -T worker python {look}")
    assert json.loads(scanned) == everything | {"80": "silent"}


@pytest.fixture
def published(host: Any) -> Iterator[int]:
    """Yield a port that a container of another project publishes on all addresses."""
    name = "tradingbot-test-published"
    host.run(f"docker rm --force {name}")
    host.check_output(
        f"docker run --detach --init --name {name} --publish {PUBLISHED}:8000 {IMAGE} python -m http.server 8000"
    )
    try:
        yield PUBLISHED
    finally:
        host.check_output(f"docker rm --force {name}")


@pytest.fixture
def without_firewall(host: Any) -> Iterator[None]:
    """Take the table away for the time of a test."""
    host.check_output("systemctl stop tradingbot-firewall.service")
    try:
        yield
    finally:
        host.check_output("systemctl start tradingbot-firewall.service")


def test_only_the_web_answers(neighbour: Any, host_address: str) -> None:
    found = scan(neighbour, host_address, 80, 443, 5432, 6379, 8001, *range(1, 80), *range(8000, 8100))
    assert {port for port, state in found.items() if state != "silent"} - {22} == {80, 443}


def test_one_address_has_so_many_connections_and_the_others_go_on(
    neighbour: Any, host_address: str, https_url: str
) -> None:
    """What it lets go of it may have again; connections of others are not counted with its own."""
    counts: list[int] = []

    def has_all() -> bool:
        crowd = neighbour(["python3", "-c", CROWD, host_address, "100"])
        assert crowd.returncode == 0, crowd.stderr
        counts.append(int(crowd.stdout))
        return counts[-1] == 64

    for _ in range(2):
        # What another one has closed just now counts until the host has closed it too.
        wait_until(has_all, 10, "one address has all connections that it may have")
    assert max(counts) == 64, counts
    answer = requests.get(f"{https_url}/api/v1/health", verify=False, timeout=5)
    assert answer.status_code == 200


def test_a_published_port_stays_inside(host: Any, neighbour: Any, host_address: str, published: int) -> None:
    host.check_output(f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {published}), 5)\"")
    assert scan(neighbour, host_address, published) == {published: "silent"}


def test_the_same_port_is_open_without_the_firewall(
    neighbour: Any, host_address: str, published: int, without_firewall: None
) -> None:
    assert scan(neighbour, host_address, published) == {published: "open"}


def test_rules_outlive_a_restart_of_the_engine(host: Any, neighbour: Any, host_address: str, published: int) -> None:
    before = scan(neighbour, host_address, published, 80, 443)
    host.check_output("systemctl restart docker.service")
    assert before[published] == "silent"
    assert scan(neighbour, host_address, published, 80, 443) == before


def test_rules_come_back_when_somebody_took_them_away(
    host: Any, neighbour: Any, host_address: str, published: int
) -> None:
    host.check_output("nft delete table inet tradingbot && systemctl reload tradingbot-firewall.service")
    assert scan(neighbour, host_address, published) == {published: "silent"}


def test_unconfirmed_rules_are_taken_back(host: Any) -> None:
    confirmed = host.check_output("nft --terse list table inet tradingbot")
    host.check_output("nft add rule inet tradingbot allowed tcp dport 4242 accept")
    assert host.check_output("nft --terse list table inet tradingbot") != confirmed
    host.check_output("systemctl start tradingbot-firewall-rollback.service")
    assert host.check_output("nft --terse list table inet tradingbot") == confirmed


def test_the_host_answers_pings_and_drops_what_is_not_named(host: Any) -> None:
    rules = host.check_output("nft list chain inet tradingbot input")
    assert "echo-request" in rules
    assert "policy drop" in rules
