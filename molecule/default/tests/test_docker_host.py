"""The host carries an engine, a project and a network, as the role docker_host promises."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from tests.stack.host import PROJECT


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split("-")[0].split(".")[:2])


def test_engine_and_compose_are_recent(host: Any) -> None:
    assert version(host.check_output("docker version --format '{{.Server.Version}}'")) >= (25, 0)
    assert version(host.check_output("docker compose version --short").lstrip("v")) >= (2, 20)
    assert host.run("docker buildx version").rc == 0


@pytest.mark.parametrize("unit", ["docker.service", "tradingbot-firewall.service"])
def test_units_run_and_start_at_boot(host: Any, unit: str) -> None:
    service = host.service(unit)
    assert service.is_running
    assert service.is_enabled


def test_no_rollback_is_pending(host: Any) -> None:
    assert not host.service("tradingbot-firewall-rollback.timer").is_running


def test_engine_has_read_its_options(host: Any) -> None:
    told = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert told["LiveRestoreEnabled"] is True
    assert told["LoggingDriver"] == "json-file"
    assert not host.process.filter(comm="docker-proxy")


def test_new_networks_leave_the_stack_s_subnet_alone(host: Any) -> None:
    stack = ipaddress.ip_network("172.20.0.0/16")
    host.check_output("docker network create tradingbot-test-pool")
    try:
        found = json.loads(host.check_output("docker network inspect tradingbot-test-pool"))[0]
    finally:
        host.check_output("docker network rm tradingbot-test-pool")
    subnet = ipaddress.ip_network(found["IPAM"]["Config"][0]["Subnet"])
    assert not subnet.overlaps(stack)
    assert subnet.prefixlen == 24


def test_network(host: Any) -> None:
    found = json.loads(host.check_output("docker network inspect tradingbot-network"))[0]
    assert found["Driver"] == "bridge"
    assert found["IPAM"]["Config"][0]["Subnet"] == "172.20.0.0/16"
    assert host.interface("br-tradingbot").exists


@pytest.mark.parametrize(
    ("name", "value"), [("vm.overcommit_memory", 1), ("net.core.somaxconn", 4096), ("net.ipv4.ip_forward", 1)]
)
def test_kernel_settings_hold_and_are_kept(host: Any, name: str, value: int) -> None:
    assert host.sysctl(name) == value
    assert f"{name}={value}" in host.file("/etc/sysctl.d/90-tradingbot.conf").content_string.splitlines()


@pytest.mark.parametrize(
    ("path", "mode"),
    [("", 0o755), ("/secrets", 0o700), ("/compose.yaml", 0o644), ("/.env", 0o644)],
)
def test_project_belongs_to_root(host: Any, path: str, mode: int) -> None:
    file = host.file(PROJECT + path)
    assert (file.user, file.group, file.mode) == ("root", "root", mode)


def test_secrets_are_closed_to_others(host: Any) -> None:
    assert "Permission denied" in host.run(f"setpriv --reuid=65534 --clear-groups ls {PROJECT}/secrets").stderr


def test_compose_shows_the_whole_project_from_its_folder(host: Any) -> None:
    told = json.loads(host.check_output(f"cd {PROJECT} && docker compose config --format json"))
    assert host.run(f"cd {PROJECT} && docker compose ps").rc == 0
    assert told["name"] == "tradingbot"
