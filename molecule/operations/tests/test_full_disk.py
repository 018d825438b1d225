"""A full disk of PostgreSQL's own, and one under a folder of the project: what fails says so, with the fix."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.stack.host import COMPOSE, PROJECT, output_of, run_on, wait_until
from tests.stack.plays import SITE, fails
from tests.testbed import hosts

DATA = "/var/lib/docker/volumes/tradingbot_postgres_data/_data"
# PostgreSQL's files on a small file system, which is then filled; as its user, for whom root's reserve does not count.
# What fills a file system always ends with an error: that it is full.
FILL = f"""
set -e
{COMPOSE} stop postgres
mkdir /run/small && mount -t tmpfs -o size=160m,uid=70,gid=70,mode=0700 tmpfs /run/small
cp -a {DATA}/. /run/small && mount --bind /run/small {DATA}
{COMPOSE} up --detach --wait postgres
{COMPOSE} exec -T postgres sh -c 'cat /dev/zero > {{}}' || true
""".format("/var/lib/postgresql/data/filled")
# Also after a part of that.
EMPTY = f"""
{COMPOSE} stop postgres
umount {DATA}; umount /run/small; rmdir /run/small
{COMPOSE} up --detach --wait postgres
"""


@pytest.fixture
def full_database(machine: hosts.Host) -> Iterator[None]:
    try:
        output_of(machine, FILL, seconds=120)
        yield
    finally:
        output_of(machine, EMPTY, seconds=120)
    wait_until(lambda: run_on(machine, "tradingbot health").returncode == 0, 60, "health is good again", every=1)


@pytest.fixture
def full_folder(machine: hosts.Host, request: pytest.FixtureRequest) -> Iterator[str]:
    """A folder of the project on a file system that holds what it held, and no more."""
    folder = f"{PROJECT}/{request.param}"
    # What fills it always ends with an error: that it is full.
    small = "mkdir /run/small && mount -t tmpfs -o size=64k,mode=0755 tmpfs /run/small"
    fill = "{ cat /dev/zero > /run/small/filled || true; } 2> /dev/null"
    try:
        output_of(machine, f"set -e; {small}; cp -a {folder}/. /run/small; {fill}; mount --bind /run/small {folder}")
        yield folder
    finally:
        output_of(machine, f"umount {folder}; umount /run/small; rmdir /run/small")


@pytest.mark.usefixtures("full_database")
def test_health_names_a_full_disk_of_the_databases_own(machine: hosts.Host) -> None:
    found = json.loads(run_on(machine, "tradingbot health --json").stdout)
    problems = {one["what"]: one for one in found["problems"]}
    volume, postgres = problems["volume tradingbot_postgres_data"], problems["postgres"]
    assert "postgres cannot write to /var/lib/postgresql/data (No space left on device): 0 MiB (0%)" in volume["why"]
    assert f"`du -xhd1 {DATA}`" in volume["fix"]
    assert "it does not write, so alerts are answered 503: ERROR:  could not extend file" in postgres["why"]
    assert "a file system is full" in postgres["fix"]


@pytest.mark.parametrize("full_folder", ["nginx/live"], indirect=True)
def test_maintenance_on_a_full_disk_is_refused_with_the_fix(machine: hosts.Host, full_folder: str) -> None:
    done = run_on(machine, "tradingbot maintenance on")
    assert done.returncode == 1
    assert f"maintenance: {full_folder}/maintenance.conf: No space left on device, a file system is full" in done.stderr
    assert "Way out: `df -h`" in done.stderr
    assert "Traceback" not in done.stderr
    assert "maintenance is off" in output_of(machine, "tradingbot maintenance status")


@pytest.mark.parametrize("full_folder", ["secrets"], indirect=True)
def test_a_secret_that_cannot_be_written_is_explained_without_it(
    machine: hosts.Host, inventory: str, full_folder: str
) -> None:
    done = fails(inventory, SITE, "--tags", "backend", "-e", "backend_notify_urls=json://user:hidden-word@127.0.0.1")
    said = " ".join(done.said.split())
    assert f"{full_folder}/notify_urls: No space left on device, a file system is full. Fix: `df -h`" in said
    assert "hidden-word" not in said
    assert "Hold the deploy lock" in said
    assert output_of(machine, "cat /run/tradingbot/deploy.lock") == "", "the lock is given back"
