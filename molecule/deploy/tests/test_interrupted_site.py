"""site.yml is killed at ten random moments while it changes the host; the next run converges, and the data is there."""

from __future__ import annotations

import os
import random
import time

import pytest
from deployments import Loaded, books_balance, to
from plays import SITE, Run, succeeds
from slots import agree_on, served, wait_for_free_slots
from stack import output_of

from tests.load import ledger
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")
SEED = int(os.environ.get("TEST_SEED", time.time_ns() % 1_000_000))
KILLS = 10
LOAD_SECONDS = 3
COUNT = "SELECT (SELECT count(*) FROM signals), (SELECT count(*) FROM orders), (SELECT count(*) FROM fills)"


def changing(number: int) -> list[str]:
    """Return variables that differ from run to run, so that each has something to do in every role."""
    return [
        *["-e", f"postgres_max_connections={200 + number}"],
        *["-e", f"redis_memory_mb={128 + number}"],
        *["-e", f"nginx_gzip_min_length={600 + number}"],
        *["-e", f'{{"backend_extra_environment": {{"SLOW_REQUEST_MS": "{1000 + number}"}}}}'],
    ]


def test_site_is_killed_at_ten_random_moments(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    print(f"\nTEST_SEED={SEED}")
    chance = random.Random(SEED)
    version = to(served(machine))
    with under_load() as before:
        time.sleep(LOAD_SECONDS)
    whole = succeeds(inventory, SITE, *version, *changing(0)).seconds
    held = [int(number) for number in ask(COUNT)[0].split("|")]
    for number in range(1, KILLS + 1):
        moment = chance.uniform(1, whole)
        run = Run(inventory, SITE, *version, *changing(number))
        time.sleep(moment)
        run.kill()
        task = [line for line in run.said.splitlines() if line.startswith(("TASK [", "PLAY RECAP"))][-1:]
        print(f"killed after {moment:.1f} s, at: {''.join(task).rstrip('* ')}")
        wait_for_free_slots(machine)
    succeeds(inventory, SITE, *version)
    again = succeeds(inventory, SITE, *version)
    assert again.changed == 0, again.said
    agree_on(machine, served(machine))
    assert all(now >= then for now, then in zip(map(int, ask(COUNT)[0].split("|")), held, strict=True))
    books_balance(before[0], ask)
    with under_load() as after:
        time.sleep(LOAD_SECONDS)
    assert after[0].failures == []
    assert output_of(machine, "systemctl --failed --no-legend --plain") == ""
