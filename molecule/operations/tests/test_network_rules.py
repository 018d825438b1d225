"""What others do to forwarding and packet filters: health names it, `site.yml` mends it, and a reload is outlived."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.stack.host import output_of, run_on, wait_until
from tests.stack.plays import SITE, succeeds
from tests.testbed import hosts

# Containers that are restarted would have another start.
STARTS = "docker ps --quiet --no-trunc | sort | xargs docker inspect --format '{{.Name}} {{.State.StartedAt}}'"
NOT_FORWARDED = "sysctl -qw net.ipv4.ip_forward=0"
FLUSHED = "nft --file /etc/nftables.conf"
INTERFACES = "ls /sys/class/net"
# Kills the look while its interface is there, for some hundredths of a second; a process that has ended has no exe.
KILLED = """for _ in 1 2 3 4 5; do
  tradingbot health > /dev/null 2>&1 & look=$!
  while [ -e /proc/$look/exe ]; do
    set -- /sys/class/net/tbhealth*
    if [ -e "$1" ]; then kill -KILL $look; exit 0; fi
  done
done
exit 1"""
# Whether the rules have been loaded again to the end: until then the engine may be about to restart.
SETTLED = (
    "! systemctl list-jobs --no-legend | grep -E '(tradingbot-rules|docker)[.]service'"
    " && ! systemctl is-failed --quiet tradingbot-rules && systemctl is-active --quiet docker"
)


@pytest.fixture
def gets_in(https_url: str) -> Callable[[], bool]:
    """Whether a client on another machine than the host gets an answer."""

    def ask() -> bool:
        try:
            return requests.get(f"{https_url}/api/v1/health", verify=False, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    return ask


@pytest.fixture(autouse=True)
def as_it_was(machine: hosts.Host, gets_in: Callable[[], bool]) -> Iterator[None]:
    """The way of clients is open before a test, and, whatever became of it, after it."""
    assert gets_in()
    yield
    output_of(machine, "sysctl -qw net.ipv4.ip_forward=1; systemctl stop nftables; systemctl start tradingbot-rules")
    assert gets_in()


def network(machine: hosts.Host) -> dict[str, Any]:
    """Return what the health check says of the way of clients."""
    found: dict[str, Any] = json.loads(run_on(machine, "tradingbot health --json").stdout)
    assert [one for one in found["problems"] if one in found["network"]["problems"]] == found["network"]["problems"]
    return dict(found["network"])


def test_the_look_from_outside_is_a_client_s_and_leaves_nothing(machine: hosts.Host) -> None:
    before = output_of(machine, INTERFACES)
    found = network(machine)
    assert found["problems"] == []
    assert found["outside"] | {"milliseconds": 0} == {
        "url": f"https://{machine.address}:443",
        "source": "192.0.2.2",
        "status": 200,
        "milliseconds": 0,
        "error": "",
    }
    # Also when it is killed; the interface ends with the process.
    output_of(machine, KILLED)
    wait_until(lambda: output_of(machine, INTERFACES) == before, 15, "the interface of the look is gone")


FORWARDING = r"forwarding: net\.ipv4\.ip_forward is 0.*no client gets in"
TABLE = r"firewall: the table `inet tradingbot` is not loaded"
DOCKERS = r"Docker's rules: they are gone for port 80 of nginx, port 443 of nginx, what"


@pytest.mark.parametrize(
    "broken",
    [
        [("nft delete table inet tradingbot", True, [TABLE]), (NOT_FORWARDED, False, [FORWARDING, TABLE])],
        [(FLUSHED, False, [TABLE, DOCKERS])],
    ],
    ids=["firewall and forwarding", "flush"],
)
def test_what_keeps_clients_out_is_named_and_mended(
    machine: hosts.Host, inventory: str, gets_in: Callable[[], bool], broken: list[tuple[str, bool, list[str]]]
) -> None:
    starts = output_of(machine, STARTS)
    for breaks, let_in, causes in broken:
        output_of(machine, breaks)
        assert gets_in() is let_in
        found = [f"{one['what']}: {one['why']}" for one in network(machine)["problems"]]
        assert [bool(re.match(cause, said)) for cause, said in zip(causes, found, strict=True)] == [True] * len(causes)
    said = " ".join(succeeds(inventory, SITE, "--tags", "docker_host").said.split())
    assert all(re.search(cause.replace("'", "'{1,2}"), said) for cause in causes), said
    assert gets_in()
    assert network(machine)["problems"] == []
    assert output_of(machine, STARTS) == starts


def test_rules_of_nftables_service_keep_clients_out_for_a_moment_only(
    machine: hosts.Host, gets_in: Callable[[], bool]
) -> None:
    starts = output_of(machine, STARTS)
    for change in ("start", "reload", "stop"):
        output_of(machine, f"systemctl {change} nftables")
        waited = wait_until(gets_in, 30, f"clients get in again after {change}")
        print(f"\nnftables.service {change}: clients get in again after {waited:.1f} s")
        # Another change that meets the engine's start has nginx restarted, by design.
        wait_until(lambda: run_on(machine, SETTLED).returncode == 0, 60, f"rules are loaded again after {change}")
        assert network(machine)["problems"] == []
    assert output_of(machine, STARTS) == starts
