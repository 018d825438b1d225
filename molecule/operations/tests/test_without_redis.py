"""Redis with damaged data: alerts are taken and releases change, and health says what is missing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack.api import call
from tests.stack.deployments import GOOD, to
from tests.stack.host import COMPOSE, active_slot, output_of, run_on
from tests.stack.plays import DEPLOY, HEALTH, ROLLBACK, fails, play, succeeds
from tests.stack.slots import agree_on, served
from tests.testbed import hosts

pytestmark = pytest.mark.usefixtures("deployable")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
DAMAGE = f"""
cd "$(docker volume inspect --format '{{{{.Mountpoint}}}}' tradingbot_redis_data)/appendonlydir"
{COMPOSE} stop redis
for file in *.aof; do printf 'no command of Redis\\n' >> "$file"; done
{COMPOSE} start redis
"""


@pytest.fixture(scope="class")
def damaged(machine: hosts.Host) -> Iterator[None]:
    """Redis falls over at each start; mended as the page says."""
    output_of(machine, DAMAGE)
    yield
    commands = re.search(r"## Redis\n.*?```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert commands
    output_of(machine, f"set -e\n{commands.group(1)}", seconds=120)


@pytest.fixture
def alert(https_url: str, new_webhook_token: Callable[[], str]) -> Callable[[], int]:
    """Sends a new alert and gives the status of its answer."""
    address = f"{https_url}/api/v1/webhooks/tradingview/{new_webhook_token()}"

    def send() -> int:
        new = {"ticker": "BTCUSDT", "action": "buy", "order_id": f"order {time.time_ns()}"}
        return call("POST", address, json=new).status_code

    return send


@pytest.mark.usefixtures("damaged")
class TestDamaged:
    """What goes on without Redis."""

    def test_a_slot_that_is_restarted_takes_alerts(
        self, machine: hosts.Host, inventory: str, alert: Callable[[], int]
    ) -> None:
        slot = active_slot(machine)
        output_of(machine, f"{COMPOSE} restart {slot} && {COMPOSE} up --no-deps --detach --wait {slot}")
        assert alert() == 202
        assert "degraded: redis does not answer" in fails(inventory, HEALTH).said

    def test_a_restart_of_it_says_why_it_is_not_up(self, machine: hosts.Host) -> None:
        done = run_on(machine, "tradingbot restart redis")
        assert done.returncode == 1
        assert re.search(
            r"redis is not up\.\n.*It keeps ending: .* times\.\nThe end of its log:\n", done.stderr, re.DOTALL
        )
        assert "Bad file format" in done.stderr

    def test_releases_change(self, machine: hosts.Host, inventory: str, alert: Callable[[], int]) -> None:
        before = served(machine)
        version = next(version for version in GOOD if version != before)
        for playbook, arguments, after in ((DEPLOY, to(version), version), (ROLLBACK, [], before)):
            succeeds(inventory, playbook, *arguments)
            assert served(machine) == after
            assert alert() == 202


def test_it_was_mended_as_the_page_says(machine: hosts.Host, inventory: str) -> None:
    assert "degraded" not in play(inventory, HEALTH).said
    agree_on(machine, served(machine))
