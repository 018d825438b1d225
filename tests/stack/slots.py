"""What a host says of its slots, from every side that could disagree: record, Compose, containers, web server."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.stack.host import COMPOSE, PROJECT, output_of, run_on
from tests.testbed import hosts

LOOK = f"""
cd {PROJECT}
cat backend/slots.json; echo; echo ---
docker compose config --services; echo ---
docker ps --all --format '{{{{.Label "com.docker.compose.service"}}}} {{{{.State}}}}' \
  --filter label=com.docker.compose.project=tradingbot --filter label=com.docker.compose.oneoff=False; echo ---
cat nginx/live/upstream.conf; echo ---
docker compose exec -T nginx curl -sS http://127.0.0.1:8081/configuration; echo ---
docker compose exec -T nginx curl -sS http://127.0.0.1:8081/upstream; echo; echo ---
cat /run/tradingbot/deploy.lock
"""


def record(machine: hosts.Host) -> dict[str, Any]:
    """Return the record of the slots."""
    found: dict[str, Any] = json.loads(output_of(machine, f"cat {PROJECT}/backend/slots.json"))
    return found


def served(machine: hosts.Host) -> str:
    """Return the version that answers requests."""
    return str(
        json.loads(output_of(machine, f"{COMPOSE} exec -T nginx curl -sS http://127.0.0.1:8081/upstream"))["version"]
    )


def releases(machine: hosts.Host) -> list[str]:
    """Return the releases that are kept."""
    return sorted(output_of(machine, f"cd {PROJECT}/backend/releases && ls *.json").replace(".json", "").split())


def last_deploy(machine: hosts.Host) -> dict[str, Any]:
    """Return the last line of the deploy log."""
    found: dict[str, Any] = json.loads(output_of(machine, f"tail -n 1 {PROJECT}/backend/deploys.jsonl"))
    return found


def agree_on(machine: hosts.Host, version: str) -> None:
    """Require that one slot runs *version*, that everybody thinks so, and that nothing else is left of a change."""
    recorded, described, containers, chosen, loaded, answer, lock = (
        part.strip() for part in output_of(machine, LOOK).split("---")
    )
    said = json.loads(recorded)
    active = said["active"]
    release = said["slots"][active]
    assert release.startswith(f"{version}-"), said
    assert said["worker"] == release, said
    assert [slot for slot, held in said["slots"].items() if held] == [active], said
    services = {f"backend-{active}", "worker"}
    assert {name for name in described.split() if name.startswith("backend") or name == "worker"} == services
    rows = [line.split() for line in containers.splitlines()]
    assert all(state == "running" for _, state in rows), containers
    assert {name for name, _ in rows if name.startswith("backend") or name == "worker"} == services, containers
    assert re.findall(r"default (\S+);", chosen) == [f"backend-{active}"]
    assert loaded.split()[1:] == [f"backend-{active}", "0"]
    assert json.loads(answer)["version"] == version
    assert lock == "", f"the deploy lock is left: {lock}"


def wait_on_host(machine: hosts.Host, condition: str, seconds: float = 120) -> None:
    """Wait until the shell's *condition* holds in the project's folder on the host."""
    script = f"""
    cd {PROJECT}
    limit=$(( $(date +%s) + {seconds:.0f} ))
    until {condition}; do [ $(date +%s) -lt $limit ] || exit 9; sleep 0.02; done
    """
    output_of(machine, script, seconds=seconds + 10)


def kill_module_when(machine: hosts.Host, condition: str, seconds: float = 120) -> str:
    """Kill, on the host, the process that changes the slots, as soon as the shell's *condition* holds there.

    Return what the record said then; '' when the process ended before.
    """
    script = f"""
    cd {PROJECT}
    limit=$(( $(date +%s) + {seconds:.0f} ))
    # A module runs from its standard input and has no name of its own; it is who holds the lock of the slots.
    at=$(stat -c :%i$ /run/tradingbot/slots.lock)
    holder() {{ awk -v at="$at" '$2 == "FLOCK" && $6 ~ at {{print $5}}' /proc/locks; }}
    until module=$(holder) && [ -n "$module" ]; do
      [ $(date +%s) -lt $limit ] || exit 9; sleep 0.05
    done
    until {condition}; do
      kill -0 $module 2>/dev/null || exit 8
      [ $(date +%s) -lt $limit ] || exit 9
      # Who looks all the time takes a processor away from those who are looked at.
      sleep 0.03
    done
    kill -9 $module
    cat backend/slots.json
    """
    done = run_on(machine, script, seconds=seconds + 10)
    assert done.returncode in (0, 8), f"{condition}: {done.returncode} {done.stdout}{done.stderr}"
    return done.stdout.strip()


def wait_for_free_slots(machine: hosts.Host, seconds: float = 120) -> float:
    """Wait until no process changes the slots any more; return how long that took."""
    started = time.monotonic()
    output_of(machine, f"timeout {seconds:.0f} flock /run/tradingbot/slots.lock true", seconds=seconds + 10)
    return time.monotonic() - started
