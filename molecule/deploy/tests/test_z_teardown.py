"""The stack taken off its host and brought back with its data; then taken off with all of it. The last of the tests."""

from __future__ import annotations

import json
import re
import subprocess

import requests
from stack import LABEL, PROJECT, deploy, output_of, run_on

from tests.load import ledger
from tests.testbed import hosts

TEARDOWN = "playbooks/teardown.yml"
# grep fails when it finds nothing, which is what is hoped for here.
UNITS = "ls /etc/systemd/system | grep ^tradingbot || true"


def changes(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many tasks have changed something in a run that got through."""
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(int(count) for count in re.findall(r"\bchanged=(\d+)", done.stdout))


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
    assert run_on(machine, "nft list table inet tradingbot").returncode != 0
    for path in ("/etc/tradingbot", "/usr/local/bin/tradingbot", "/run/tradingbot/deploy.lock.held"):
        assert run_on(machine, f"test -e {path}").returncode != 0, path


def test_it_goes_and_its_data_stays(
    inventory: str, machine: hosts.Host, https_url: str, ask: ledger.Query, secrets: dict[str, str]
) -> None:
    # Other tests have left another version than the inventory's, which is the one that comes back.
    changes(deploy(inventory))
    data, kept, counts = volumes(machine), files(machine), counted(ask)
    assert data
    assert "secrets/secret_key" in kept, kept
    active = json.loads(output_of(machine, f"cat {PROJECT}/backend/slots.json"))

    done = deploy(inventory, playbook=TEARDOWN)
    assert changes(done) > 0
    for told in (*data, f"{PROJECT}: secrets", "tradingbot-worker-1"):
        assert told in done.stdout
    check_that_it_is_off(machine)
    assert volumes(machine) == data
    assert files(machine) == kept
    assert changes(deploy(inventory, playbook=TEARDOWN)) == 0, "a second time there is nothing to do"

    half = deploy(inventory, "--extra-vars", "teardown_data=true", playbook=TEARDOWN)
    assert half.returncode != 0
    assert volumes(machine) == data

    assert changes(deploy(inventory)) > 0
    assert requests.get(f"{https_url}/api/v1/health", verify=False, timeout=20).status_code == 200
    assert json.loads(output_of(machine, f"cat {PROJECT}/backend/slots.json"))["active"] == active["active"]
    signals, orders = counted(ask)
    assert signals == counts[0]
    # The worker is back and goes on with what waits.
    assert orders >= counts[1]
    assert changes(deploy(inventory)) == 0


def test_its_data_goes_when_it_is_said_twice(inventory: str, machine: hosts.Host) -> None:
    said = ["--extra-vars", f"teardown_data=true teardown_confirm={machine.name}"]
    done = deploy(inventory, *said, playbook=TEARDOWN)
    assert changes(done) > 0
    check_that_it_is_off(machine)
    assert volumes(machine) == []
    assert run_on(machine, f"test -e {PROJECT}").returncode != 0
    assert output_of(machine, "docker images --quiet tradingbot-backend") == ""
    assert changes(deploy(inventory, *said, playbook=TEARDOWN)) == 0
