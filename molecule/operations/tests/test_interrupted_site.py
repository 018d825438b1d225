"""site.yml is killed at random moments while it changes the host; the next run converges, and the data is there."""

from __future__ import annotations

import random
import time

import pytest

from tests.load import ledger
from tests.stack.deployments import Loaded, books_balance, to
from tests.stack.host import output_of
from tests.stack.moments import SEED, some_of
from tests.stack.plays import SITE, Run, succeeds
from tests.stack.slots import agree_on, served, wait_for_free_slots
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")
# Each in a part of the run of its own.
KILLS = 10
LOAD_SECONDS = 3
# Who asks seldom sees whether the stack serves; how much it serves beside other stages is not looked at here.
SELDOM = ["--rate", "20", "--connections", "20"]
COUNT = "SELECT (SELECT count(*) FROM signals), (SELECT count(*) FROM orders), (SELECT count(*) FROM fills)"


def changing(number: int) -> list[str]:
    """Return variables that differ from run to run, so that each has something to do in every role."""
    return [
        *["-e", f"postgres_max_connections={200 + number}"],
        *["-e", f"redis_memory_mb={128 + number}"],
        *["-e", f"nginx_gzip_min_length={600 + number}"],
        *["-e", f'{{"backend_extra_environment": {{"SLOW_REQUEST_MS": "{1000 + number}"}}}}'],
    ]


def test_site_is_killed_at_random_moments(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    print(f"\nTEST_SEED={SEED}")
    chance = random.Random(SEED)
    version = to(served(machine))
    with under_load(*SELDOM) as before:
        time.sleep(LOAD_SECONDS)
    whole = succeeds(inventory, SITE, *version, *changing(0)).seconds
    held = [int(number) for number in ask(COUNT)[0].split("|")]
    for number in some_of(range(1, KILLS + 1), 2):
        moment = chance.uniform(whole * (number - 1) / KILLS, whole * number / KILLS)
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
    with under_load(*SELDOM) as after:
        time.sleep(LOAD_SECONDS)
    assert after[0].failures == []
    assert output_of(machine, "systemctl --failed --no-legend --plain") == ""
