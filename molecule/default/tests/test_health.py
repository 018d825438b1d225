"""The health play and the host's command see what is wrong, name it, and are quick."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.host import COMPOSE, PROJECT, output_of, run_on, wait_until
from tests.stack.plays import HEALTH, play
from tests.testbed import hosts


@pytest.fixture
def stopped(machine: hosts.Host, request: pytest.FixtureRequest) -> Iterator[str]:
    """A service that is away during the test; all is well again after it."""
    service = str(request.param)
    output_of(machine, f"{COMPOSE} stop {service}")
    yield service
    output_of(machine, f"tradingbot up {service}")
    wait_until(lambda: run_on(machine, "tradingbot health").returncode == 0, 30, "all is well again")


def test_all_is_well_and_is_shown_as_a_table(inventory: str) -> None:
    start = time.monotonic()
    done = play(inventory, HEALTH)
    print(f"\nhealth.yml: {time.monotonic() - start:.1f} s (aim: 5 s for a host)")
    assert done.code == 0, done.said
    assert "changed=0" in done.said
    for line in (
        r"SERVICE +STATE +HEALTH +RESTARTS",
        r"postgres +running +healthy",
        r"backend-\w+ \* +running +healthy",
    ):
        assert re.search(rf"^ +{line}", done.said, re.MULTILINE), done.said
    for name in (
        "disk",
        "memory",
        "clock",
        "requests go to",
        "web",
        "from outside",
        "certificate",
        "schema",
        "queue",
        "backup",
    ):
        assert re.search(rf"^ +{name} {{2,}}\S", done.said, re.MULTILINE), name
    assert "All is well." in done.said


def test_json_for_programs(inventory: str, machine: hosts.Host, tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    done = play(inventory, HEALTH, "-e", "health_format=json", "-e", f"health_file={path}")
    assert done.code == 0, done.said
    found = json.loads(path.read_text())
    assert found["healthy"] is True
    host = found["hosts"][machine.name]
    assert {row["service"] for row in host["services"]} >= {"postgres", "redis", "worker", "nginx"}
    assert all(row["memory_mb"] > 0 for row in host["services"])
    assert host["schema"]["ok"] is True
    assert host["queue"]["depth"] >= 0
    assert host["tls"]["days"] > 300
    assert host["problems"] == []
    # As the operations page says: the document is the block of the output between these two lines.
    printed = re.search(r"^        \{$.*?^        \}$", done.said, re.MULTILINE | re.DOTALL)
    assert printed is not None
    assert json.loads(printed.group())["hosts"].keys() == found["hosts"].keys()


@pytest.mark.parametrize("stopped", ["redis"], indirect=True)
def test_a_stopped_service_fails_the_play_and_is_named(
    inventory: str, machine: hosts.Host, stopped: str, tmp_path: Path
) -> None:
    path = tmp_path / "health.json"
    start = time.monotonic()
    done = play(inventory, HEALTH, "-e", f"health_file={path}")
    print(f"\nhealth.yml with a stopped service: {time.monotonic() - start:.1f} s")
    assert done.code == 2
    assert f"{stopped}: it is exited, exit code 0. Way out: `tradingbot logs --tail 50 {stopped}`" in done.said
    # And what follows from it: the backend does without.
    named = [stopped, "backend"]
    problems = json.loads(path.read_text())["hosts"][machine.name]["problems"]
    assert [one["what"] for one in problems] == named
    found = run_on(machine, "tradingbot health --json")
    assert found.returncode == 1
    assert [one["what"] for one in json.loads(found.stdout)["problems"]] == named


@pytest.mark.parametrize("stopped", ["postgres"], indirect=True)
def test_without_the_database_it_still_answers_in_time(machine: hosts.Host, stopped: str) -> None:
    start = time.monotonic()
    found = run_on(machine, "tradingbot health --json")
    print(f"\ntradingbot health without PostgreSQL: {time.monotonic() - start:.1f} s")
    assert found.returncode == 1
    told = {one["what"] for one in json.loads(found.stdout)["problems"]}
    assert {stopped, "schema and queue"} <= told


def test_a_web_server_that_runs_something_else_is_named(machine: hosts.Host) -> None:
    live = f"{PROJECT}/nginx/live/upstream.conf"
    before = output_of(machine, f"cat {live}")
    other = before.replace("-blue", "-x").replace("-green", "-blue").replace("-x", "-green")
    output_of(machine, f"cat > {live}", other + "\n")
    try:
        found = run_on(machine, "tradingbot health --json")
    finally:
        output_of(machine, f"cat > {live}", before + "\n")
    assert found.returncode == 1
    assert [one["what"] for one in json.loads(found.stdout)["problems"]] == ["backend slots", "nginx"]
    assert run_on(machine, "tradingbot health").returncode == 0


def test_logs_and_restart_by_playbook(inventory: str, machine: hosts.Host) -> None:
    done = play(inventory, "playbooks/logs.yml", "-e", "service=worker", "-e", "lines=3")
    assert done.code == 0, done.said
    assert 1 <= len(re.findall(r"^ +worker-1 +\| \{", done.said, re.MULTILINE)) <= 3
    before = output_of(machine, "docker inspect --format '{{.State.StartedAt}}' tradingbot-redis-1")
    done = play(inventory, "playbooks/restart.yml", "-e", "service=redis")
    assert done.code == 0, done.said
    assert output_of(machine, "docker inspect --format '{{.State.StartedAt}}' tradingbot-redis-1") != before


@pytest.mark.parametrize(
    ("playbook", "arguments"),
    [("restart", []), ("restart", ["-e", "service=mongo"]), ("logs", ["-e", "service=mongo"])],
)
def test_playbooks_refuse_services_that_nobody_has(inventory: str, playbook: str, arguments: list[str]) -> None:
    done = play(inventory, f"playbooks/{playbook}.yml", *arguments)
    assert done.code == 2
    assert "one of postgres, redis, backend, worker, nginx" in done.said
    assert "changed=0" in done.said
