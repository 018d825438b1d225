"""The host that is measured: the demo's stack on a host of its own, open to a load generator on this machine."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

from tests.testbed import hosts
from tests.testbed.shell import ROOT, STATE, TestbedError

NAME = "bench"
FOLDER = STATE / "bench"
INVENTORY = FOLDER / "inventory"
# Below the ports that the kernel gives to outgoing connections (32768 and up), one of which may have any number.
HTTP_PORT, HTTPS_PORT, BACKEND_PORT = 24080, 24443, 24001
PROJECT = "/opt/tradingbot"
# What differs from the demo. The limits would otherwise be what is measured; the open port lets direct requests come
# the same way as those through nginx; the versions to deploy come from the registry, which has no certificate.
SETTINGS: dict[str, object] = {
    "nginx_api_rate": 6_000_000,
    "nginx_api_burst": 100_000,
    "nginx_webhook_rate": 6_000_000,
    "nginx_webhook_burst": 100_000,
    "nginx_webhook_client_rate": 6_000_000,
    "nginx_webhook_client_burst": 100_000,
    "nginx_client_connections": 10_000,
    "docker_host_firewall_web_connections": 0,
    "docker_host_daemon_options": {"insecure-registries": ["registry:5000"]},
    # The load is more than one worker trades at once, on purpose; nothing keeps the clock of these hosts in time.
    "docker_host_health_thresholds": {
        "queue_depth": 1_000_000,
        "queue_oldest_seconds": 86_400,
        "clock_synchronised": False,
    },
    "docker_host_firewall_rules": [{"ports": [8001], "sources": ["10.99.0.0/24"]}],
}


def inventory(host: hosts.Host) -> dict[str, object]:
    """Return the inventory of *host*, in Ansible's YAML form (which JSON is a part of)."""
    variables: dict[str, object] = {
        "ansible_host": "127.0.0.1",
        "ansible_port": host.ssh_port,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": host.identity_file,
        "ansible_ssh_common_args": f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={host.known_hosts}",
        "demo_https_port": HTTPS_PORT,
        "demo_secrets": str(FOLDER / "secrets"),
        **SETTINGS,
    }
    groups: dict[str, object] = {
        group: {"hosts": {NAME: {}}} for group in ("docker_host", "postgres", "redis", "backend", "nginx")
    }
    return {"all": {"hosts": {NAME: variables}, "children": groups}}


def refuse_kept() -> None:
    """Raise TestbedError when an earlier run left its host: nothing can be told about a bare one then."""
    if NAME in hosts.names():
        raise TestbedError(
            f"the host {NAME} is there already, and a bare one is to be measured; "
            f"`.venv/bin/python -m tests.testbed remove {NAME}`, or a part of it: --only trading, load or memory"
        )


def create() -> hosts.Host:
    """Make a bare host and an inventory for it."""
    host = hosts.create(NAME, publish={80: HTTP_PORT, 443: HTTPS_PORT, 8001: BACKEND_PORT})
    write_inventory(host)
    return host


def write_inventory(host: hosts.Host) -> None:
    """Write the inventory folder: the demo's variables, this host, and what differs."""
    INVENTORY.mkdir(parents=True, exist_ok=True)
    link = INVENTORY / "group_vars"
    link.unlink(missing_ok=True)
    link.symlink_to(ROOT / "inventories" / "demo" / "group_vars")
    (INVENTORY / "hosts.yml").write_text(json.dumps(inventory(host), indent=2) + "\n")


def remove() -> None:
    """Remove the host, its inventory and its secrets; results stay."""
    hosts.remove(NAME)
    for folder in (INVENTORY, FOLDER / "secrets"):
        shutil.rmtree(folder, ignore_errors=True)


def on_host(host: hosts.Host, *command: str, timeout: float = 120) -> str:
    """Return what *command* prints when root runs it on the host. Raises TestbedError when it fails."""
    remote = [*hosts.ssh(host), f"sudo {shlex.join(command)}"]
    try:
        done = subprocess.run(remote, check=False, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"no end after {timeout:.0f} s on the host: {' '.join(command)}") from error
    if done.returncode != 0:
        raise TestbedError(f"exit {done.returncode} on the host from: {' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout.strip()


def active_slot(host: hosts.Host) -> str:
    """Return the slot of the backend that gets the requests."""
    return str(json.loads(on_host(host, "cat", f"{PROJECT}/backend/slots.json"))["active"])


def open_backend(host: hosts.Host) -> None:
    """Lead port 8001 of the host to the slot that gets the requests, by the kernel as for a published port.

    Behind nginx slots publish nothing. The rules are gone with the host, or when they are made anew.
    """
    name = f"tradingbot-backend-{active_slot(host)}-1"
    template = '{{(index .NetworkSettings.Networks "tradingbot-network").IPAddress}}'
    address = on_host(host, "docker", "inspect", "--format", template, name)
    # The table is there only when an earlier run has made it.
    rules = f"""
    nft delete table ip bench 2>/dev/null || true
    nft -f - <<END
    table ip bench {{
        chain in {{ type nat hook prerouting priority dstnat; tcp dport 8001 dnat to {address}:8001; }}
    }}
END
    iptables -C DOCKER-USER -d {address} -p tcp --dport 8001 -j ACCEPT 2>/dev/null ||
    iptables -I DOCKER-USER -d {address} -p tcp --dport 8001 -j ACCEPT
    """
    on_host(host, "sh", "-ec", rules)


def close_backend(host: hosts.Host) -> None:
    """Let port 8001 be published by something else."""
    # It may be closed already.
    on_host(host, "sh", "-c", "nft delete table ip bench 2>/dev/null || true")


def compose(host: hosts.Host, *arguments: str, timeout: float = 180) -> str:
    """Run `docker compose` for the stack on the host and return what it prints."""
    return on_host(host, "docker", "compose", "--project-directory", PROJECT, *arguments, timeout=timeout)
