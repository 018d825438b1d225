"""What the tests of deploys share: the host, the versions to deploy, and the load that looks on."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import deployments
import pytest
from stack import COMPOSE, output_of

from tests.load import ledger, plan, running, versions
from tests.load.result import Result
from tests.testbed import hosts

ROOT = Path(__file__).resolve().parents[3]


def _fixtures_of_a_deployed_host() -> ModuleType:
    """Load the default scenario's fixtures, which have the same file name as these."""
    path = ROOT / "molecule" / "default" / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("fixtures_of_a_deployed_host", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_default = _fixtures_of_a_deployed_host()
as_root = _default.as_root
inventory = _default.inventory
machine = _default.machine
secrets = _default.secrets
https_url = _default.https_url
http_url = _default.http_url
host_address = _default.host_address
neighbour = _default.neighbour
backend_cli = _default.backend_cli
api_key = _default.api_key
new_webhook_token = _default.new_webhook_token


@pytest.fixture(scope="session")
def deployable(machine: hosts.Host) -> None:
    """The versions are in the registry."""
    versions.make(machine, deployments.MADE)


@pytest.fixture(scope="session")
def target(
    machine: hosts.Host, https_url: str, backend_cli: Callable[..., dict[str, str]], tmp_path_factory: Any
) -> Path:
    """The strategies and keys that the load uses."""
    path: Path = tmp_path_factory.mktemp("load") / "plan.json"
    plan.make(https_url, backend_cli, f"load-{time.time_ns()}").write(path)
    return path


@pytest.fixture(scope="session")
def ask(machine: hosts.Host) -> ledger.Query:
    """Asks the database as its administrator."""
    return lambda sql: output_of(machine, f"{COMPOSE} exec -T postgres {deployments.ADMINISTRATOR}", sql).splitlines()


@pytest.fixture(scope="session")
def runs() -> list[Result]:
    """What every run of load came to."""
    return []


@pytest.fixture
def under_load(target: Path, tmp_path: Path, runs: list[Result]) -> deployments.Loaded:
    """Loads the stack while a block runs; the list that it gives has the result in it afterwards."""

    @contextmanager
    def loaded() -> Iterator[list[Result]]:
        results: list[Result] = []
        with running.load(target, tmp_path / "result.json") as run:
            try:
                yield results
            finally:
                results.append(run.stop())
                runs.append(results[0])
                print(f"\n{results[0].table()}")

    return loaded
