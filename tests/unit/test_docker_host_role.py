"""What the role docker_host decides and renders."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from rendering import evaluate, render

ROLE = "docker_host"


def host(
    codename: str = "trixie", identity: str = "debian", packages: tuple[str, ...] = (), **facts: Any
) -> dict[str, Any]:
    found = {
        "os": {"id": identity, "version": "", "codename": codename},
        "packages": dict.fromkeys(packages, "28.0"),
        "connection": {"address": "192.0.2.7", "port": 22},
        "docker": {"running": False, "options": {}, "options_pending": False},
    }
    return {"facts": found | facts}


@pytest.mark.parametrize(
    ("codename", "identity", "installed", "needed", "not_wanted"),
    [
        ("trixie", "debian", (), {"docker.io", "docker-cli", "docker-compose", "docker-buildx"}, {"docker-ce"}),
        ("forky", "debian", (), {"docker.io", "docker-cli", "docker-compose"}, {"docker-ce"}),
        ("bookworm", "debian", (), {"docker-ce", "docker-ce-cli", "docker-compose-plugin"}, {"docker.io"}),
        ("noble", "ubuntu", (), {"docker.io", "docker-compose-v2", "docker-buildx"}, {"docker-ce", "docker-compose"}),
        ("trixie", "debian", ("docker-ce",), {"docker-ce", "docker-buildx-plugin"}, {"docker.io"}),
        ("bookworm", "debian", ("docker.io",), {"docker.io"}, {"docker-ce"}),
    ],
)
def test_packages(
    codename: str, identity: str, installed: tuple[str, ...], needed: set[str], not_wanted: set[str]
) -> None:
    found = host(codename, identity, installed)
    packages = set(evaluate(ROLE, "__docker_host_packages", __docker_host_preflight=found))
    assert needed <= packages
    assert not packages & not_wanted
    assert packages <= set(evaluate(ROLE, "__docker_host_known_packages"))


def test_daemon_json_keeps_what_the_user_says() -> None:
    text = render(
        ROLE,
        "etc/docker/daemon.json.j2",
        docker_host_registry_mirrors=["http://registry:5000"],
        docker_host_daemon_options={"log-opts": {"max-size": "1m"}, "debug": True},
    )
    options = json.loads(text)
    assert options["log-opts"] == {"max-size": "1m", "max-file": "3"}
    assert options["registry-mirrors"] == ["http://registry:5000"]
    assert options["debug"] is True
    assert options["live-restore"] is True
    assert options["userland-proxy"] is False


@pytest.mark.parametrize(
    ("options", "changed", "restart"),
    [
        ({}, set(), False),
        ({"debug": True}, {"debug"}, False),
        ({"live-restore": False, "bip": "172.17.0.1/24"}, {"live-restore", "bip"}, True),
    ],
)
def test_a_restart_only_for_what_a_reload_does_not_take_over(
    options: dict[str, Any], changed: set[str], restart: bool
) -> None:
    running = evaluate(ROLE, "__docker_host_daemon_options")
    found = host(docker={"running": True, "options": running, "options_pending": False})
    variables = {"__docker_host_preflight": found, "docker_host_daemon_options": options}
    assert set(evaluate(ROLE, "__docker_host_changed_options", **variables)) == changed
    left = evaluate(ROLE, "__docker_host_changed_options | difference(__docker_host_reloadable_options)", **variables)
    assert bool(left) == restart


def rules(**variables: Any) -> list[str]:
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", **({"__docker_host_preflight": host()} | variables))
    chain = text.split("chain allowed {")[1].split("}\n\n")[0]
    return [" ".join(line.split()) for line in chain.splitlines() if "accept" in line]


def test_firewall_opens_ssh_to_its_sources_and_the_web_to_all() -> None:
    assert rules(docker_host_firewall_ssh_sources=["192.0.2.0/24", "2001:db8::/64"]) == [
        "meta l4proto tcp ct original proto-dst { 22 } ip saddr 192.0.2.0/24 accept",
        "meta l4proto tcp ct original proto-dst { 22 } ip6 saddr 2001:db8::/64 accept",
        "meta l4proto tcp ct original proto-dst { 80, 443 } ip saddr 0.0.0.0/0 accept",
        "meta l4proto tcp ct original proto-dst { 80, 443 } ip6 saddr ::/0 accept",
    ]


def test_firewall_uses_the_port_of_the_connection_unless_told() -> None:
    found = host(connection={"address": "192.0.2.7", "port": 2222})
    sources = {"docker_host_firewall_ssh_sources": ["192.0.2.7"], "docker_host_firewall_web_ports": []}
    assert rules(**sources, __docker_host_preflight=found) == [
        "meta l4proto tcp ct original proto-dst { 2222 } ip saddr 192.0.2.7 accept"
    ]
    assert "{ 2200 }" in rules(**sources, docker_host_firewall_ssh_port=2200)[0]
    assert "{ 22 }" in rules(**sources, __docker_host_preflight=host(connection={}))[0]


def test_firewall_takes_further_rules() -> None:
    extra = [{"ports": [5432, 6379], "sources": ["10.0.0.5"]}, {"ports": [9000], "sources": []}]
    found = rules(docker_host_firewall_web_ports=[], docker_host_firewall_rules=extra)
    assert found == ["meta l4proto tcp ct original proto-dst { 5432, 6379 } ip saddr 10.0.0.5 accept"]


def test_firewall_counts_the_web_connections_of_each_sender() -> None:
    known = {
        "__docker_host_preflight": host(),
        "docker_host_firewall_web_connections_exempt": ["192.0.2.0/24", "2001:db8::/32"],
    }
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", docker_host_firewall_web_connections=7, **known)
    chain = text.split("chain web_connections {\n")[1].split("    }\n")[0]
    assert [line.strip() for line in chain.splitlines()] == [
        "ip saddr 192.0.2.0/24 return",
        "ip6 saddr 2001:db8::/32 return",
        "add @web_senders { ip saddr ct count over 7 } drop",
        "add @web_senders6 { ip6 saddr and ffff:ffff:ffff:ffff:: ct count over 7 } drop",
    ]
    counted = "ct status dnat meta l4proto tcp ct original proto-dst { 80, 443 } jump web_connections"
    assert text.index("ct state established,related accept", text.index("chain forward")) < text.index(counted)
    assert text.index(counted) < text.index("ct status dnat jump allowed")
    off = render(ROLE, "etc/tradingbot/firewall.nft.j2", docker_host_firewall_web_connections=0, **known)
    assert "web_connections" not in off
    none = render(ROLE, "etc/tradingbot/firewall.nft.j2", docker_host_firewall_web_ports=[], **known)
    assert "jump web_connections" not in none


def test_firewall_is_one_transaction_that_drops_by_itself() -> None:
    text = render(ROLE, "etc/tradingbot/firewall.nft.j2", __docker_host_preflight=host())
    commands = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    assert commands[:3] == ["table inet tradingbot", "delete table inet tradingbot", "table inet tradingbot {"]
    assert "hook input priority filter - 5; policy drop;" in text
    assert text.index("ct status dnat jump allowed") < text.index("ct status dnat drop")


def test_compose_includes_every_service() -> None:
    project = yaml.safe_load(render(ROLE, "opt/tradingbot/compose.yaml.j2", docker_host_services=["redis", "nginx"]))
    assert project == {"name": "tradingbot", "include": ["redis/compose.yaml", "nginx/compose.yaml"]}


def test_a_host_without_services_still_has_a_project() -> None:
    project = yaml.safe_load(render(ROLE, "opt/tradingbot/compose.yaml.j2", docker_host_services=[]))
    assert project == {"name": "tradingbot", "services": {}}


def test_fragments() -> None:
    found = evaluate(ROLE, "__docker_host_fragments", docker_host_services=["redis"], docker_host_project_dir="/srv/x")
    assert found == ["/srv/x/redis/compose.yaml"]
