"""Deploys and rollbacks under load: nobody notices the good ones, and the bad ones leave the former version serving."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.load import ledger
from tests.load.result import Result
from tests.stack.deployments import (
    BREAKS_MIGRATING,
    CONTRACTS,
    DIES,
    DROPS_UNSAID,
    EXPANDS,
    GOOD,
    NEVER_READY,
    Loaded,
    books_balance,
    nobody_noticed,
    to,
)
from tests.stack.host import PROJECT, output_of
from tests.stack.moments import ALL
from tests.stack.plays import DEPLOY, ROLLBACK, Done, fails, succeeds
from tests.stack.slots import agree_on, last_deploy, releases, served
from tests.testbed import hosts

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("deployable")]
LOOK_SECONDS = 30
SCHEMA = "SELECT version_num FROM alembic_version"
SOON = ["-e", "backend_wait_timeout=15"]


def tell(what: str, done: Done, machine: hosts.Host) -> None:
    """Print how long a play took, and how much of it the change of the slots."""
    print(f"\n{what}: {done.seconds:.1f} s, of it {last_deploy(machine)['seconds']} s on the host")


def test_deploys_in_a_row_and_a_rollback_lose_nothing(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    versions = GOOD if ALL else GOOD[:3]
    with under_load() as results:
        for version in versions:
            tell(f"deploy of {version}", succeeds(inventory, DEPLOY, *to(version)), machine)
            assert served(machine) == version
        tell("rollback", succeeds(inventory, ROLLBACK), machine)
        agree_on(machine, versions[-2])
    nobody_noticed(results[0], ask, restarts=len(versions) + 1)
    assert all(socket.events > 0 for socket in results[0].sockets), "there was something to miss"
    assert last_deploy(machine)["action"] == "rollback"


def test_what_fails_before_the_switch_is_noticed_by_nobody(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    """Never ready; a migration that breaks; one that the running version could not live with; no such image."""
    before, serving = ask(SCHEMA), served(machine)
    with under_load() as results:
        for version, why in (
            (NEVER_READY, "was not ready within 15 s"),
            (BREAKS_MIGRATING, "division by zero"),
            (DROPS_UNSAID, "contract"),
            ("9.9.9", "9.9.9"),
        ):
            done = fails(inventory, DEPLOY, *to(version), *SOON)
            print(f"\n{version} was given up after {done.seconds:.1f} s")
            assert re.search(why, done.said), done.said
            agree_on(machine, serving)
            logged = last_deploy(machine)
            assert logged["result"] == "failed"
            assert version in logged["to"]
            assert re.search(why, logged["reason"]), logged
    assert ask(SCHEMA) == before
    nobody_noticed(results[0], ask, restarts=0)


def test_a_version_that_dies_after_the_switch_is_rolled_back(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    """It kills itself with requests in hand, so some fail: those of the few seconds until the former one serves."""
    serving = served(machine)
    with under_load() as results:
        done = fails(inventory, DEPLOY, *to(DIES))
        agree_on(machine, serving)
    assert f"Requests go to {serving}-" in done.said, done.said
    result = results[0]
    failed = [failure.at for failure in result.failures]
    if failed:
        print(f"\n{len(failed)} of {result.requests} requests failed, within {max(failed) - min(failed):.1f} s")
    assert result.missed() == 0
    books_balance(result, ask)


@pytest.fixture
def schema_is_put_back(machine: hosts.Host, inventory: str, ask: ledger.Query) -> Iterator[None]:
    """Afterwards the schema and the version are those that the other tests know."""
    before, serving = ask(SCHEMA)[0], served(machine)
    yield
    if ask(SCHEMA) != [before]:
        contracted = next(name for name in releases(machine) if name.startswith(CONTRACTS))
        compose = f"docker compose --project-name tradingbot --file {PROJECT}/backend/releases/{contracted}.yaml"
        migrate = f"run --rm -T schema tradingbot migrate --downgrade {before}"
        output_of(machine, f"COMPOSE_IGNORE_ORPHANS=true {compose} {migrate}")
    succeeds(inventory, DEPLOY, *to(serving))


@pytest.mark.usefixtures("schema_is_put_back")
def test_a_contraction_needs_the_expansion_deployed_and_the_word_of_a_person(
    machine: hosts.Host, inventory: str, under_load: Loaded, ask: ledger.Query
) -> None:
    allowed, serving = ["-e", "backend_allow_contract=true"], served(machine)
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'strategies' AND column_name = 'note'"
    with under_load() as results:
        early = fails(inventory, DEPLOY, *to(CONTRACTS), *allowed)
        assert ask(columns) == ["0"], early.said
        succeeds(inventory, DEPLOY, *to(EXPANDS))
        assert ask(columns) == ["1"]
        unsaid = fails(inventory, DEPLOY, *to(CONTRACTS))
        assert "backend_allow_contract=true" in unsaid.said
        assert ask(columns) == ["1"]
        # The version before lives with an expanded schema, so the way back is open.
        succeeds(inventory, ROLLBACK)
        agree_on(machine, serving)
        succeeds(inventory, ROLLBACK)
        agree_on(machine, EXPANDS)
        succeeds(inventory, DEPLOY, *to(CONTRACTS), *allowed)
        assert ask(columns) == ["0"]
        succeeds(inventory, ROLLBACK)
        agree_on(machine, EXPANDS)
        refused = fails(inventory, ROLLBACK, "-e", f"backend_release={serving}")
        assert "contracted" in refused.said
        agree_on(machine, EXPANDS)
    nobody_noticed(results[0], ask, restarts=5)


def test_the_worker_catches_up_and_orders_nothing_twice(ask: ledger.Query, runs: list[Result]) -> None:
    """More alerts came in than a busy machine trades at once; each worker of the deploys took up what was left."""
    waiting = [sum(ledger.queued(result, ask) for result in runs)]
    until = time.monotonic() + LOOK_SECONDS
    while waiting[-1] and time.monotonic() < until:
        time.sleep(5)
        waiting.append(sum(ledger.queued(result, ask) for result in runs))
    print(f"\n{sum(len(result.accepted) for result in runs)} alerts; waiting, every 5 s: {waiting}")
    assert waiting[-1] == 0 or waiting[-1] < waiting[0]
    assert [problem for result in runs for problem in ledger.problems(result, ask)] == []
