"""One deploy at a time: a second one is refused, or waits when it is asked to, and the log names each of them."""

from __future__ import annotations

import re

import pytest

from tests.stack.deployments import GOOD, to
from tests.stack.host import output_of
from tests.stack.plays import DEPLOY, SITE, Run, fails, succeeds
from tests.stack.slots import agree_on, last_deploy
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")
HOLDS = "TASK [tradingbot.stack.backend : Ensure the service has its folders"


def test_others_are_refused_at_once_and_told_who_holds_the_lock(machine: hosts.Host, inventory: str) -> None:
    first = Run(inventory, DEPLOY, *to(GOOD[1]))
    first.wait_for(HOLDS)
    site = Run(inventory, SITE, *to(GOOD[1]), "--tags", "postgres")
    second = fails(inventory, DEPLOY, *to(GOOD[2]))
    assert re.search(r"held by \S+@\S+ since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC .*release " + GOOD[1], second.said)
    assert "backend_deploy_wait" in second.said
    refused = site.end()
    assert refused.code != 0
    assert refused.changed == 0
    assert "Ensure PostgreSQL is configured" not in refused.said
    assert f"release {GOOD[1]}" in refused.said
    assert first.end().code == 0
    agree_on(machine, GOOD[1])


def test_a_second_deploy_waits_when_asked_to(machine: hosts.Host, inventory: str) -> None:
    first = Run(inventory, DEPLOY, *to(GOOD[0]))
    first.wait_for(HOLDS)
    second = succeeds(inventory, DEPLOY, *to(GOOD[2]), "-e", "backend_deploy_wait=240")
    assert first.end().code == 0
    assert "waiting for the deploy lock, held by" in second.said
    agree_on(machine, GOOD[2])


def test_the_log_names_who_and_what_and_how_long(machine: hosts.Host) -> None:
    logged = last_deploy(machine)
    assert {"time", "who", "action", "from", "to", "seconds", "result", "reason", "steps"} <= set(logged)
    assert "@" in logged["who"]
    assert output_of(machine, "stat -c %a /opt/tradingbot/backend/deploys.jsonl") in ("644", "640", "600")
