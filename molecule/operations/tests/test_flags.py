"""`--check`, `--diff`, `--tags` and `--limit` do what they say with deploys, and change nothing else."""

from __future__ import annotations

import pytest

from tests.stack.deployments import GOOD, to
from tests.stack.host import output_of
from tests.stack.plays import DEPLOY, SITE, fails, play, succeeds
from tests.stack.slots import agree_on, record, served
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")
LOOK = (
    "cd /opt/tradingbot && find . -path ./logs -prune -o -path ./cache -prune -o -type f -printf '%p %T@ %s\\n' | sort"
)
STARTED = "docker ps --format '{{.Names}}' | sort | xargs docker inspect --format '{{.Name}} {{.State.StartedAt}}'"


def state(machine: hosts.Host) -> str:
    """Return all files of the project with their times, and when each container was started."""
    return output_of(machine, f"{LOOK}; {STARTED}")


def other(machine: hosts.Host) -> str:
    """Return a version that does not run."""
    return next(version for version in GOOD if version != served(machine))


def test_check_with_diff_shows_a_deploy_and_changes_nothing(machine: hosts.Host, inventory: str) -> None:
    before, version = state(machine), other(machine)
    said = succeeds(inventory, DEPLOY, *to(version), "--check", "--diff").said
    assert state(machine) == before
    assert "changed=0" not in said, "it tells that the release would change"
    assert output_of(machine, "cat /run/tradingbot/deploy.lock") == ""


def test_a_limit_to_another_host_deploys_nothing(machine: hosts.Host, inventory: str) -> None:
    before = record(machine)
    done = play(inventory, DEPLOY, *to(other(machine)), "--limit", "nobody")
    assert done.code != 0 or "no hosts matched" in done.said
    assert record(machine) == before


def test_a_deploy_without_a_version_is_refused_and_told_how(machine: hosts.Host, inventory: str) -> None:
    before = record(machine)
    assert "-e backend_version=<version>" in fails(inventory, DEPLOY).said
    assert record(machine) == before


def test_tags_leave_the_other_services_alone(machine: hosts.Host, inventory: str) -> None:
    version = served(machine)
    started = output_of(machine, STARTED)
    succeeds(inventory, SITE, *to(version), "--tags", "redis,nginx", "--limit", machine.name)
    assert output_of(machine, STARTED) == started
    agree_on(machine, version)
