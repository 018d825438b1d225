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


@pytest.fixture
def search_domain(machine: hosts.Host) -> Iterator[str]:
    """A domain in which the host looks for short names, and before it asks for them as they are."""
    output_of(machine, "cp /etc/resolv.conf /root/resolv.conf")
    output_of(machine, "printf 'search corp.example\\noptions ndots:5\\n' >> /etc/resolv.conf")
    yield "corp.example"
    output_of(machine, "cat /root/resolv.conf > /etc/resolv.conf")


def test_no_container_of_a_release_asks_in_the_hosts_search_domain(
    machine: hosts.Host, inventory: str, search_domain: str
) -> None:
    """A stopped Redis would else become a stranger's `redis.corp.example`, who is told the password."""
    version = next(version for version in GOOD if version != served(machine))
    succeeds(inventory, DEPLOY, *to(version))
    agree_on(machine, version)
    for service in (active_slot(machine), "worker"):
        assert search_domain not in output_of(machine, f"{COMPOSE} exec -T {service} cat /etc/resolv.conf")
        output_of(machine, f"{COMPOSE} exec -T {service} getent hosts redis")
        assert run_on(machine, f"{COMPOSE} exec -T {service} getent hosts nobody").returncode == 2
