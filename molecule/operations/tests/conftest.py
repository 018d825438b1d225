"""The versions that the tests of operations bring to the host."""

from __future__ import annotations

import pytest

from tests.load import versions
from tests.stack.deployments import GOOD
from tests.testbed import hosts


@pytest.fixture(scope="session")
def deployable(machine: hosts.Host) -> None:
    """Three versions are in the registry."""
    versions.make(machine, [versions.Version(number) for number in GOOD[:3]])
