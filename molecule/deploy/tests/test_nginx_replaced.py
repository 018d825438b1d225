"""Another definition of nginx's container, under load: its clients are served by a second one meanwhile."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.load import ledger
from tests.stack.deployments import Loaded, nobody_noticed
from tests.stack.host import output_of, services
from tests.stack.plays import SITE, succeeds
from tests.testbed import hosts

pytestmark = pytest.mark.alone
# A client on the host itself, whose connections take another way: each is a new one. It counts what it gets.
LOCAL_CLIENT = """
import collections, http.client, json, os, ssl, sys, time
trust, answers = ssl._create_unverified_context(), collections.Counter()
print("running", flush=True)
while os.getppid() != 1 and not os.path.exists("/tmp/local-client-ends"):
    connection = http.client.HTTPSConnection("127.0.0.1", 443, timeout=3, context=trust)
    try:
        connection.request("GET", "/api/v1/health")
        answers[str(connection.getresponse().status)] += 1
    except OSError as error:
        answers[repr(error)] += 1
    finally:
        connection.close()
    time.sleep(0.05)
print(json.dumps(answers))
"""


@pytest.fixture
def local_client(machine: hosts.Host) -> Iterator[subprocess.Popen[str]]:
    """Asks on the host itself, all the time, until the file says that it ends."""
    output_of(machine, "rm -f /tmp/local-client-ends")
    command = [*hosts.ssh(machine), "python3", "-c", f"'{LOCAL_CLIENT}'"]
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert client.stdout
    assert client.stdout.readline().strip() == "running"
    yield client
    output_of(machine, "touch /tmp/local-client-ends")
    client.wait(10)


LOGGED = "journalctl --quiet --output=cat --identifier=tradingbot_nginx"


def test_nginx_is_recreated_and_nobody_notices(
    machine: hosts.Host,
    inventory: str,
    under_load: Loaded,
    ask: ledger.Query,
    local_client: subprocess.Popen[str],
) -> None:
    before = services(machine)["nginx"]
    # Back and forth, so that the test can be run again.
    memory = {128 << 20: 136, 136 << 20: 128}[before["HostConfig"]["Memory"]]
    began = output_of(machine, "date +%s")
    with under_load() as results:
        done = succeeds(inventory, SITE, "--tags", "nginx", "-e", f"nginx_memory={memory}m")
    print(f"\nsite.yml --tags nginx: {done.seconds:.0f} s")
    output_of(machine, "touch /tmp/local-client-ends")
    local = json.loads(local_client.communicate(timeout=20)[0])
    print(f"clients on the host itself: {local}")
    after = services(machine)["nginx"]
    assert (after["Id"] != before["Id"], after["HostConfig"]["Memory"]) == (True, memory << 20)
    assert set(local) == {"200"}
    assert local["200"] > 50
    # By the first one to the second, and by that to the recreated one.
    nobody_noticed(results[0], ask, restarts=2)
    nothing_is_left(machine)
    # Whichever of the three answers, clients keep their addresses; one on the host itself has the bridge's.
    outside = f"{machine.address.rpartition('.')[0]}.1"
    lines = output_of(machine, f"{LOGGED} --since @{began}").splitlines()
    clients = Counter(json.loads(line)["client"] for line in lines if line.startswith("{"))
    assert {name for name, count in clients.items() if count > 5} == {outside, "172.20.0.1"}, clients
    assert succeeds(inventory, SITE, "--tags", "nginx", "-e", f"nginx_memory={memory}m").changed == 0


def nothing_is_left(machine: hosts.Host) -> None:
    """Require that neither rules nor a container of the replacement are left."""
    assert "tradingbot_nginx" not in output_of(machine, "nft list tables")
    assert output_of(machine, "docker ps --all --quiet --filter name=nginx-second") == ""
