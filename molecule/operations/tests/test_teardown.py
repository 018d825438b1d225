"""The stack taken off its host and brought back with its data; then taken off with all of it."""

from __future__ import annotations

import json

import pytest
import requests

from tests.load import ledger
from tests.stack.host import LABEL, PROJECT, output_of, run_on
from tests.stack.plays import SITE, TEARDOWN, fails, succeeds
from tests.testbed import hosts

pytestmark = pytest.mark.last
# grep fails when it finds nothing, which is what is hoped for here.
# After a teardown there is none, which grep tells by its exit code.
UNITS = "ls /etc/systemd/system | grep -E '^(tradingbot|nftables.service.d|netfilter-persistent.service.d)' || true"
FAILED = "systemctl list-units --failed --plain --no-legend 'tradingbot*'"


def counted(ask: ledger.Query) -> list[int]:
    """Return how many signals and orders there are."""
    counts = ask("SELECT (SELECT count(*) FROM signals), (SELECT count(*) FROM orders)")[0]
    return [int(number) for number in counts.split("|")]


def volumes(machine: hosts.Host) -> list[str]:
    """Return the names of the stack's volumes."""
    return output_of(machine, f"docker volume ls --quiet --filter label={LABEL}").split()


def files(machine: hosts.Host) -> dict[str, str]:
    """Return the digests of the files that must outlive the stack."""
    folders = "secrets models nginx/tls nginx/live backend/releases backend/slots.json backend/deploys.jsonl"
    found = output_of(machine, f"cd {PROJECT} && find {folders} -type f -exec sha256sum {{}} +")
    return {name: digest for digest, name in (line.split(None, 1) for line in found.splitlines())}


def check_that_it_is_off(machine: hosts.Host) -> None:
    """Check that nothing of the stack runs or would start."""
    assert output_of(machine, f"docker ps --all --quiet --filter label={LABEL}") == ""
    assert output_of(machine, "docker network ls --quiet --filter name=tradingbot") == ""
    assert output_of(machine, UNITS) == ""
    assert output_of(machine, FAILED) == ""
    assert run_on(machine, "nft list table inet tradingbot").returncode != 0
    for path in ("/etc/tradingbot", "/usr/local/bin/tradingbot", "/run/tradingbot/deploy.lock.held"):
        assert run_on(machine, f"test -e {path}").returncode != 0, path


def test_it_goes_and_its_data_stays(
    inventory: str, machine: hosts.Host, https_url: str, ask: ledger.Query, secrets: dict[str, str]
) -> None:
    # Other tests have left another version than the inventory's, which is the one that comes back.
    succeeds(inventory, SITE)
    data, kept, counts = volumes(machine), files(machine), counted(ask)
    assert data
    assert "secrets/secret_key" in kept, kept
    active = json.loads(output_of(machine, f"cat {PROJECT}/backend/slots.json"))

    done = succeeds(inventory, TEARDOWN)
    assert done.changed > 0
    for told in (*data, f"{PROJECT}: secrets", "tradingbot-worker-1"):
        assert told in done.said
    check_that_it_is_off(machine)
    assert volumes(machine) == data
    assert files(machine) == kept
    assert succeeds(inventory, TEARDOWN).changed == 0, "a second time there is nothing to do"

    fails(inventory, TEARDOWN, "--extra-vars", "teardown_data=true")
    assert volumes(machine) == data

    assert succeeds(inventory, SITE).changed > 0
    assert requests.get(f"{https_url}/api/v1/health", verify=False, timeout=20).status_code == 200
    assert json.loads(output_of(machine, f"cat {PROJECT}/backend/slots.json"))["active"] == active["active"]
    signals, orders = counted(ask)
    assert signals == counts[0]
    # The worker is back and goes on with what waits.
    assert orders >= counts[1]
    assert succeeds(inventory, SITE).changed == 0


def test_its_data_goes_when_it_is_said_twice(inventory: str, machine: hosts.Host) -> None:
    said = ["--extra-vars", f"teardown_data=true teardown_confirm={machine.name}"]
    assert succeeds(inventory, TEARDOWN, *said).changed > 0
    check_that_it_is_off(machine)
    assert volumes(machine) == []
    assert run_on(machine, f"test -e {PROJECT}").returncode != 0
    assert output_of(machine, "docker images --quiet tradingbot-backend") == ""
    assert succeeds(inventory, TEARDOWN, *said).changed == 0
