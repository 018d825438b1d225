"""The names of services are asked of Docker, and of nobody on the host's network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.deployments import GOOD, to
from tests.stack.host import COMPOSE, active_slot, output_of, run_on
from tests.stack.plays import DEPLOY, succeeds
from tests.stack.slots import agree_on, served
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")
STRANGER = "192.0.2.66"
# A name server that knows every name, as that of a network with a wildcard.
WILDCARD = f"""
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    asked, sender = server.recvfrom(512)
    end = asked.index(0, 12) + 5
    found = asked[end - 4:end - 2] == bytes([0, 1])
    answer = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]) + socket.inet_aton("{STRANGER}") if found else b""
    server.sendto(asked[:2] + bytes([0x81, 0x80, 0, 1, 0, found, 0, 0, 0, 0]) + asked[12:end] + answer, sender)
"""


@pytest.fixture
def wildcard(machine: hosts.Host) -> Iterator[None]:
    """The host looks for short names in a domain, and its name server knows every name."""
    output_of(machine, "cat > /run/wildcard.py", WILDCARD)
    output_of(machine, "systemd-run --unit tests-wildcard python3 /run/wildcard.py && cp /etc/resolv.conf /run/before")
    output_of(machine, "printf 'nameserver 127.0.0.1\\nsearch corp.example\\n' > /etc/resolv.conf")
    yield
    output_of(machine, "cat /run/before > /etc/resolv.conf; systemctl stop tests-wildcard")


@pytest.mark.usefixtures("wildcard")
def test_a_stranger_does_not_take_the_place_of_redis(machine: hosts.Host, inventory: str) -> None:
    """While it is away; the stranger would be told its password."""
    version = next(version for version in GOOD if version != served(machine))
    succeeds(inventory, DEPLOY, *to(version))
    agree_on(machine, version)
    output_of(machine, f"{COMPOSE} stop redis")
    try:
        for service in (active_slot(machine), "worker"):
            inside = f"{COMPOSE} exec -T {service}"
            assert STRANGER in output_of(machine, f"{inside} getent ahostsv4 example.com"), "the host's server is asked"
            assert run_on(machine, f"{inside} getent ahostsv4 redis").returncode == 2
            assert output_of(machine, f"{inside} getent ahostsv4 postgres").startswith("172.20.")
    finally:
        output_of(machine, f"{COMPOSE} start redis")
