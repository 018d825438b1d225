"""The versions that the tests of operations bring to the host."""

from __future__ import annotations

import pytest

from tests.load import versions
from tests.stack.deployments import GOOD, to
from tests.stack.plays import DEPLOY, succeeds
from tests.testbed import hosts


@pytest.fixture(scope="session")
def deployable(machine: hosts.Host, inventory: str) -> None:
    """The sound versions are in the registry, and the first of them serves: the inventory's own is in no registry."""
    versions.make(machine, [versions.Version(number) for number in GOOD])
    succeeds(inventory, DEPLOY, *to(GOOD[0]))
