"""The versions that the tests of deploys bring to the host."""

from __future__ import annotations

import pytest

from tests.load import versions
from tests.stack import deployments
from tests.testbed import hosts


@pytest.fixture(scope="session")
def deployable(machine: hosts.Host) -> None:
    """The versions are in the registry."""
    versions.make(machine, deployments.MADE)
