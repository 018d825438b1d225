"""A deploy that is killed at any step: the service stays up, and the next run repairs what is left."""

from __future__ import annotations

import json
import random
import time

import pytest

from tests.load import ledger
from tests.stack.deployments import GOOD, Loaded, nobody_noticed, to
from tests.stack.moments import some_of
from tests.stack.plays import DEPLOY, Run, succeeds
from tests.stack.slots import agree_on, kill_module_when, record, served, wait_for_free_slots, wait_on_host
from tests.testbed import hosts

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("deployable")]
# What a deploy does before it comes to the slots. The run that repairs one kill is the one that is killed next.
TASKS = [
    "Hold the deploy lock of this host",
    "Ensure the service has its folders and secrets",
    "Ensure the image is on the host",
    "Ensure it keeps a name of ours",
    "Ensure the release is described",
    "Ask the new version what it would do to the schema",
]
SLOTS = "TASK [tradingbot.stack.backend : Ensure the release runs"
# Moments of the change itself, as the host can tell them: {old} and {new} are the slots.
MOMENTS = {
    "new slot": 'grep -q \'"{new}": "[^"]*{version}-\' backend/slots.json',
    "record": 'grep -q \'"active": "{new}"\' backend/slots.json',
    "web server": "grep -q backend-{new} nginx/live/upstream.conf",
    "worker": 'grep -q \'"worker": "{version}-\' backend/slots.json',
    "old slot": "! docker ps --format '{{{{.Names}}}}' | grep -q backend-{old}",
}


def other(machine: hosts.Host) -> str:
    """Return one of two versions, the one that does not run."""
    return next(version for version in GOOD[:2] if version != served(machine))


def start(machine: hosts.Host, inventory: str) -> tuple[Run, str, dict[str, str]]:
    """Start a deploy; return it, its version, and the words for the moments of its change."""
    version, active = other(machine), record(machine)["active"]
    names = {"old": active, "new": {"blue": "green", "green": "blue"}[active], "version": version}
    return Run(inventory, DEPLOY, *to(version)), version, names


def test_ansible_is_killed_at_each_step_before_the_slots(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    before, version = record(machine), other(machine)
    with under_load() as results:
        for task in some_of(TASKS, 2):
            run = Run(inventory, DEPLOY, *to(version), "-e", "backend_pull=always")
            run.wait_for(f" : {task}]")
            time.sleep(random.uniform(0, 0.5))
            assert run.kill().code < 0
            now = record(machine)
            assert now == before, f"killed at {task}"
        said = succeeds(inventory, DEPLOY, *to(version)).said
        assert "took over the deploy lock of" in said
        agree_on(machine, version)
    nobody_noticed(results[0], ask, restarts=1)


def test_ansible_is_killed_while_the_slots_change(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    """The host goes on by itself; the next run waits for that, and finds all done."""
    moments = some_of([MOMENTS["new slot"], MOMENTS["web server"]], 1)
    with under_load() as results:
        for moment in moments:
            run, version, names = start(machine, inventory)
            run.wait_for(SLOTS)
            wait_on_host(machine, moment.format(**names))
            run.kill()
            print(f"\nkilled at the step; the host went on for {wait_for_free_slots(machine):.1f} s")
            assert served(machine) == version, "the host has finished the change by itself"
            succeeds(inventory, DEPLOY, *to(version))
            agree_on(machine, version)
    nobody_noticed(results[0], ask, restarts=len(moments))


@pytest.mark.parametrize("moment", some_of(list(MOMENTS), 2))
def test_the_process_on_the_host_is_killed(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query, moment: str
) -> None:
    """Half of the change is left; the next run finishes it, or takes it back and makes it anew."""
    with under_load() as results:
        run, version, names = start(machine, inventory)
        run.wait_for(SLOTS)
        then = kill_module_when(machine, MOMENTS[moment].format(**names))
        assert then, "the change was over before the moment came"
        assert run.end().code != 0
        print(f"\nkilled with the record at {json.loads(then)}")
        succeeds(inventory, DEPLOY, *to(version))
        agree_on(machine, version)
    nobody_noticed(results[0], ask, restarts=1)
