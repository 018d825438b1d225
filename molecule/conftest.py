"""What the checks of a deployed host share. They run on the controller and look at the host from inside and outside."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Before their import: what these require on behalf of the tests tells the values when it does not hold.
pytest.register_assert_rewrite("tests.load.ledger", "tests.stack")

from tests.load import ledger, plan, running
from tests.load.result import Result
from tests.stack import deployments
from tests.stack.host import COMPOSE, output_of
from tests.stack.plays import PLAIN
from tests.testbed import hosts, images, registry


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what leaves the host unfit for other tests after all of them."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="module", autouse=True)
def as_root(host: Any) -> Iterator[None]:
    """Look at the host as root, by sudo."""
    with host.sudo():
        yield


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> str:
    """The inventory that the host was deployed with."""
    return str(request.config.getoption("ansible_inventory") or request.config.getoption("--ansible-inventory"))


@pytest.fixture(scope="session")
def machine(inventory: str) -> hosts.Host:
    """How this machine reaches the host under test."""
    listed = json.loads(subprocess.check_output(["ansible-inventory", "-i", inventory, "--list"], text=True))
    return hosts.describe(listed["docker_host"]["hosts"][0])


@pytest.fixture(scope="session")
def secrets(inventory: str, machine: hosts.Host) -> dict[str, str]:
    """The values of the inventory's secrets: all variables that begin with vault_."""
    told = "{{ dict(query('varnames', '^vault_') | zip(query('vars', *query('varnames', '^vault_')))) | to_json }}"
    command = ["ansible", machine.name, "-i", inventory, "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": told})]
    environment = os.environ | PLAIN | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment)
    values: dict[str, str] = json.loads(json.loads(done.stdout.split("=>", 1)[1])["msg"])
    return values


@pytest.fixture(scope="session")
def https_url(machine: hosts.Host) -> str:
    """The stack over HTTPS, from outside the host."""
    return f"https://127.0.0.1:{machine.ports['443']}"


@pytest.fixture(scope="session")
def http_url(machine: hosts.Host) -> str:
    """The stack over HTTP, from outside the host."""
    return f"http://127.0.0.1:{machine.ports['80']}"


@pytest.fixture(scope="session")
def host_address(machine: hosts.Host) -> str:
    """The address of the host on the network that it shares with its neighbours."""
    return machine.address


@pytest.fixture(scope="session")
def neighbour(host_address: str) -> Iterator[Callable[[list[str]], subprocess.CompletedProcess[str]]]:
    """Runs a command on another machine of the host's network, which also knows the way to the stack's own."""
    name = f"tradingbot-neighbour-{uuid.uuid4().hex[:8]}"
    image = registry.local_name("python:3.13-slim")
    subprocess.run(
        ["docker", "run", "--detach", "--rm", "--name", name, "--network", registry.NETWORK, image, "sleep", "3600"],
        check=True,
        capture_output=True,
    )
    in_its_network = ["docker", "run", "--rm", "--network", f"container:{name}", "--cap-add", "NET_ADMIN"]
    add_route = ["--entrypoint", "ip", images.target("trixie"), "route", "add", "172.20.0.0/16", "via", host_address]
    subprocess.run([*in_its_network, *add_route], check=True, capture_output=True)

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", name, *command], check=False, capture_output=True, text=True, timeout=120
        )

    yield run
    subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


@pytest.fixture(scope="session")
def backend_cli(machine: hosts.Host) -> Callable[..., dict[str, str]]:
    """Runs the backend's own command line on the host and gives what it printed as JSON."""

    def run(*arguments: str) -> dict[str, str]:
        told = output_of(machine, f"{COMPOSE} exec -T worker tradingbot {shlex.join(arguments)} --json")
        return dict(json.loads(told))

    return run


@pytest.fixture(scope="module")
def user() -> str:
    """A user whom the tests of other files do not know: their alerts would fill the queue of this one's WebSockets."""
    return f"tests-{time.time_ns()}@example.com"


@pytest.fixture(scope="module")
def api_key(backend_cli: Callable[..., dict[str, str]], user: str) -> str:
    """A key that may read the signals of the user that the tests' strategies belong to."""
    return backend_cli("api-key", "create", "--user", user, "--name", "tests")["api_key"]


@pytest.fixture(scope="module")
def new_webhook_token(backend_cli: Callable[..., dict[str, str]], user: str) -> Callable[[], str]:
    """Makes a strategy and gives the token of its webhook."""

    def make() -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        url = backend_cli("strategy", "create", "--user", user, "--name", name)["webhook_url"]
        return url.rsplit("/", 1)[1]

    return make


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
    """Loads the stack while a block runs; the list that it gives has the result in it afterwards.

    Options are those of `python -m tests.load`.
    """

    @contextmanager
    def loaded(*options: str) -> Iterator[list[Result]]:
        results: list[Result] = []
        with running.load(target, tmp_path / "result.json", *options) as run:
            try:
                yield results
            finally:
                results.append(run.stop())
                runs.append(results[0])
                print(f"\n{results[0].table()}")

    return loaded
