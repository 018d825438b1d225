"""A host with an engine, a firewall and the stack's network is refused for what has become wrong with it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

Refuses = Callable[..., str]
OnHost = Callable[..., str]
VOLUME = "tradingbot_postgres_data"
IMAGE = "debian:trixie-slim"


@pytest.fixture(autouse=True, scope="module")
def deployed(site: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The host that was refused so often carries the stack once nothing is wrong with it any more."""
    done = site(None, "--tags=docker_host")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture
def taken(on_host: OnHost) -> Iterator[None]:
    """A container of somebody else's on port 443, and data of PostgreSQL 14 in the stack's volume."""
    on_host(f"docker run --quiet --detach --name somebody --publish 443:443 {IMAGE} sleep 600")
    data = on_host(f"docker volume create {VOLUME} && docker volume inspect --format '{{{{.Mountpoint}}}}' {VOLUME}")
    on_host(f"echo 14 > {data.split()[1]}/PG_VERSION")
    yield
    on_host(f"docker rm --force somebody; docker volume rm {VOLUME}")


def test_a_change_shows(on_host: OnHost, changes: Callable[[], Callable[[], list[str]]]) -> None:
    changed = changes()
    assert changed() == []
    on_host("docker volume create somebody && nft add rule inet tradingbot input counter")
    try:
        found = changed()
    finally:
        on_host("docker volume rm somebody")
        on_host("systemctl restart tradingbot-firewall")
    assert "volumes: somebody" in found
    assert any(line.startswith("ruleset: ") for line in found)


@pytest.mark.usefixtures("taken")
def test_what_has_become_wrong(refuses: Refuses, on_host: OnHost) -> None:
    refuses(
        [
            ("port 443", "the container somebody publishes it", "docker stop somebody"),
            (
                "network tradingbot-network",
                "it exists as 172.20.0.0/16 on br-tradingbot, wanted is 172.21.0.0/16",
                "docker network rm tradingbot-network.*docker_host_network_subnet",
            ),
            ("package docker.io", r"is installed, 99 or newer is needed", "apt-get install --only-upgrade docker.io"),
            ("package docker-compose", r"is installed, 98 or newer", "apt-get install --only-upgrade docker-compose"),
            ("postgres_version", "data of PostgreSQL 14, which PostgreSQL 15 cannot read", "pg_dump"),
            ("docker_host_firewall_ssh_sources", "comes from 10.99.0.1, .* lock you out", r"add 10\.99\.0\.1 "),
        ],
        {
            "docker_host_network_subnet": "172.21.0.0/16",
            "docker_host_engine_minimum": "99",
            "docker_host_compose_minimum": "98",
            "docker_host_firewall_ssh_sources": ["192.0.2.0/24"],
        },
    )


def test_a_user_who_may_not(refuses: Refuses) -> None:
    """Not even whether there is data can be seen then, and the rest is reported all the same."""
    refuses(
        [
            ("privileges", r"uid \d+, not as root", "become: true"),
            (f"/var/lib/docker/volumes/{VOLUME}/_data", "cannot be seen: .*not readable: .*PG_VERS", "become: true"),
        ],
        {"ansible_become": False},
    )
