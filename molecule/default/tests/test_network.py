"""What can be reached from where, and where data lies."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from tests.stack.host import active_slot, output_of, run_on, services
from tests.testbed import hosts

# Prints which ports of an address let us in within so many seconds: all that there are, or those that are named.
SCAN = """
import json, resource, select, socket, sys, time

address, seconds = socket.gethostbyname(sys.argv[1]), float(sys.argv[2])
ports = [int(port) for port in sys.argv[3:]] or list(range(1, 65536))
at_once = min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 64)
resource.setrlimit(resource.RLIMIT_NOFILE, (at_once + 64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
found = []
for start in range(0, len(ports), at_once):
    waiting, poll = {}, select.poll()
    for port in ports[start : start + at_once]:
        attempt = socket.socket()
        attempt.setblocking(False)
        attempt.connect_ex((address, port))
        waiting[attempt.fileno()] = attempt, port
        poll.register(attempt)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        for number, _ in poll.poll(100):
            attempt, port = waiting.pop(number)
            poll.unregister(number)
            if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            attempt.close()
    for attempt, _ in waiting.values():
        attempt.close()
print(json.dumps(sorted(found)))
"""
# The worker's container stands for all of the stack's: it has Python.
INSIDE = "docker exec -i tradingbot-worker-1 python -"
INSIDE_PORTS = {"postgres": 5432, "redis": 6379, "worker": 8002, "nginx": 8443}


def open_ports(told: str) -> list[int]:
    """Return the ports that the scan found open."""
    return [int(port) for port in json.loads(told)]


def test_a_neighbour_reaches_ssh_and_the_web_only(neighbour: Any, host_address: str) -> None:
    """All ports of the host, PostgreSQL's, Redis's and the backend's among them."""
    answer = neighbour(["python3", "-c", SCAN, host_address, "1"])
    assert answer.returncode == 0, answer.stderr
    # SSH is open for the addresses in docker_host_firewall_ssh_sources, which the neighbour has.
    assert open_ports(answer.stdout) == [22, 80, 443]


def test_on_the_host_only_the_web_server_is_published(machine: hosts.Host) -> None:
    for address in ("127.0.0.1", machine.address):
        found = output_of(machine, f"python3 - {address} 1 80 443 5432 6379 8001", SCAN)
        assert open_ports(found) == [80, 443]


def test_only_the_web_server_is_published_on_all_addresses(machine: hosts.Host) -> None:
    for name, found in services(machine).items():
        bindings = [binding for bound in found["HostConfig"]["PortBindings"].values() for binding in bound]
        public = sorted(binding["HostPort"] for binding in bindings if binding["HostIp"] != "127.0.0.1")
        assert public == (["443", "80"] if name == "nginx" else []), name


def test_services_reach_each_other_by_name_in_the_stacks_network(machine: hosts.Host) -> None:
    for name, port in (INSIDE_PORTS | {active_slot(machine): 8001}).items():
        assert open_ports(output_of(machine, f"{INSIDE} {name} 5 {port}", SCAN)) == [port]
    subnet = ipaddress.ip_network("172.20.0.0/16")
    for name, found in services(machine).items():
        network = found["NetworkSettings"]["Networks"]["tradingbot-network"]
        assert ipaddress.ip_address(network["IPAddress"]) in subnet, name


def test_a_route_into_the_stacks_network_leads_nowhere(machine: hosts.Host, neighbour: Any) -> None:
    """The neighbour sends to the containers' own addresses, by way of the host: to metrics, too."""
    for name, found in services(machine).items():
        address = found["NetworkSettings"]["Networks"]["tradingbot-network"]["IPAddress"]
        answer = neighbour(["python3", "-c", SCAN, address, "1", *map(str, INSIDE_PORTS.values())])
        assert answer.returncode == 0, answer.stderr
        assert open_ports(answer.stdout) == [], name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/tradingbot/models", "10001:10001 750"),
        ("/var/lib/docker/volumes/tradingbot_postgres_data/_data", "70:70 700"),
        ("/var/lib/docker/volumes/tradingbot_redis_data/_data", "999:1000 755"),
    ],
)
def test_data_belongs_to_its_service(machine: hosts.Host, path: str, expected: str) -> None:
    assert output_of(machine, f"stat -c '%u:%g %a' {path}") == expected


def test_the_backend_reads_models_and_runs_nothing_that_it_writes(machine: hosts.Host) -> None:
    run = "docker exec tradingbot-worker-1"
    output_of(machine, "install -o 10001 -g 10001 -m 0440 /dev/null /opt/tradingbot/models/test-model")
    try:
        output_of(machine, f"{run} cat /app/models/test-model")
        assert "Read-only file system" in run_on(machine, f"{run} touch /app/models/other").stderr
        for folder in ("/app/logs", "/app/cache", "/tmp"):
            file = f"{folder}/test-file"
            output_of(machine, f"{run} cp /bin/true {file}")
            started = run_on(machine, f"{run} {file}")
            assert "permission denied" in started.stdout + started.stderr, folder
            large = run_on(machine, f"{run} dd if=/dev/zero of={file} bs=1M count=80")
            assert "No space left on device" in large.stderr, folder
            output_of(machine, f"{run} rm {file}")
    finally:
        output_of(machine, "rm -f /opt/tradingbot/models/test-model")


def test_data_lies_in_named_volumes(machine: hosts.Host) -> None:
    volumes = output_of(
        machine, "docker volume ls --quiet --filter label=com.docker.compose.project=tradingbot"
    ).split()
    assert sorted(volumes) == ["tradingbot_postgres_data", "tradingbot_redis_data"]
    assert output_of(machine, "docker volume ls --quiet --filter dangling=true") == ""
