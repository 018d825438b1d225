"""A rollback goes to any kept release, and to no other."""

from __future__ import annotations

import pytest

from tests.stack.deployments import GOOD, to
from tests.stack.plays import DEPLOY, ROLLBACK, fails, succeeds
from tests.stack.slots import agree_on, releases, served
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")


@pytest.fixture(scope="module")
def kept(machine: hosts.Host, inventory: str) -> list[str]:
    """Two versions that are kept, each with one release, and do not serve; those of other tests where there are any."""
    serving, known = served(machine), [release.rpartition("-")[0] for release in releases(machine)]
    found = [version for version in GOOD if known.count(version) == 1 and version != serving][:2]
    missing = [version for version in GOOD if version not in known][: 2 - len(found)]
    for version in missing:
        succeeds(inventory, DEPLOY, *to(version))
    if missing:
        succeeds(inventory, DEPLOY, *to(serving))
    return found + missing


def test_a_rollback_goes_to_any_kept_version(machine: hosts.Host, inventory: str, kept: list[str]) -> None:
    for version in kept:
        succeeds(inventory, ROLLBACK, "-e", f"backend_release={version}")
        agree_on(machine, version)


def test_a_rollback_to_what_is_not_kept_is_refused(machine: hosts.Host, inventory: str, kept: list[str]) -> None:
    serving = served(machine)
    said = fails(inventory, ROLLBACK, "-e", "backend_release=1.2.3").said
    assert "1.2.3" in said
    assert kept[0] in said, "it names those that are kept"
    agree_on(machine, serving)
