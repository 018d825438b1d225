"""The command `tradingbot` does on the host what its help says, and refuses the rest with the right exit code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.stack.api import call
from tests.stack.host import COMPOSE, PROJECT, active_slot, output_of, query, run_on, services, wait_until
from tests.testbed import hosts

LOCK = "/run/tradingbot/deploy.lock"


def tradingbot(machine: hosts.Host, *arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
    """Run the command as root, without a terminal."""
    return run_on(machine, f"tradingbot {shlex.join(arguments)}", seconds=seconds)


def done(machine: hosts.Host, *arguments: str) -> str:
    """Return what the command prints; fails the test unless its exit code is 0."""
    found = tradingbot(machine, *arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def refused(machine: hosts.Host, code: int, *arguments: str) -> str:
    """Return how the command refuses; fails the test unless its exit code is *code*."""
    found = tradingbot(machine, *arguments)
    assert found.returncode == code, found.stdout + found.stderr
    return found.stderr


def identities(machine: hosts.Host) -> dict[str, tuple[str, str]]:
    """Return each service's container, and since when it runs."""
    return {name: (one["Id"], one["State"]["StartedAt"]) for name, one in services(machine).items()}


@pytest.fixture
def deploying(machine: hosts.Host) -> Iterator[None]:
    """Somebody holds the deploy lock."""
    holder = {"id": "test", "who": "tester@elsewhere", "purpose": "deploy 9.9.9", "pid": 1, "valid_seconds": 3600}
    now = float(output_of(machine, "date +%s"))
    command = f"mkdir -p -m 0700 $(dirname {LOCK}) && cat > {LOCK}"
    output_of(machine, command, json.dumps(holder | {"since": now}))
    yield
    output_of(machine, f": > {LOCK}")


def test_without_root_it_says_how(machine: hosts.Host) -> None:
    for words in ("ps", "psql -l", "maintenance on"):
        found = subprocess.run(
            [*hosts.ssh(machine), f"tradingbot {words}"], check=False, capture_output=True, text=True, timeout=30
        )
        assert found.returncode == 2
        assert f"sudo tradingbot {words.split()[0]}" in found.stderr


def test_help_needs_no_root(machine: hosts.Host) -> None:
    for words in ("--help", "exec --help"):
        found = subprocess.run(
            [*hosts.ssh(machine), f"tradingbot {words}"], check=False, capture_output=True, text=True, timeout=30
        )
        assert found.returncode == 0
        assert "exit codes:" in found.stdout


def test_completion_is_installed(machine: hosts.Host) -> None:
    script = (
        ". /usr/share/bash-completion/completions/tradingbot;"
        "COMP_WORDS=(tradingbot ma); COMP_CWORD=1; _tradingbot; echo $COMPREPLY"
    )
    assert output_of(machine, f"bash -c {shlex.quote(script)}") == "maintenance"


def test_ps_and_version_tell_what_runs(machine: hosts.Host) -> None:
    active = active_slot(machine)
    rows = {line.split()[0]: line for line in done(machine, "ps").splitlines()[1:]}
    assert set(rows) == {"postgres", "redis", active, "worker", "nginx"}
    assert all(" running " in row and " healthy " in row for row in rows.values())
    assert rows[active].split()[1] == "*"
    found = json.loads(done(machine, "version", "--json"))
    assert {one["service"] for one in found["running"]} == set(rows)
    in_use = services(machine)["backend"]["Config"]["Image"]
    assert in_use in {one["image"] for one in found["releases"]}
    # The newest first.
    log = output_of(machine, f"cat {PROJECT}/backend/deploys.jsonl").splitlines()
    assert found["deploys"] == [json.loads(line) for line in reversed(log[-5:])]
    text = done(machine, "version")
    assert re.search(rf"^  \S+ +\S+ +\d{{4}} +\S+ +{active}, worker$", text, re.MULTILINE)


def test_logs_are_plain_lines_of_the_services_asked_for(machine: hosts.Host) -> None:
    lines = done(machine, "logs", "--tail", "3", "backend", "redis").splitlines()
    assert {line.split(" ")[0].rsplit("-", 1)[0] for line in lines} == {active_slot(machine), "redis"}
    assert len(lines) <= 6
    assert not any("\x1b" in line for line in lines)


def test_psql_passes_arguments_on_and_gives_its_exit_code(machine: hosts.Host) -> None:
    assert done(machine, "psql", "-XAtc", "SELECT current_user, current_database()") == "postgres|tradingbot\n"
    assert tradingbot(machine, "psql", "-c", "SELECT nonsense").returncode == 1


def test_redis_cli_is_who_the_backend_is_and_shows_no_password(machine: hosts.Host) -> None:
    assert done(machine, "redis-cli", "ping") == "PONG\n"
    password = output_of(machine, f"sed 's|.*://[^:]*:||; s|@.*||' {PROJECT}/secrets/redis_url")
    waiting = (
        "timeout 3 tradingbot redis-cli -i 1 -r 3 ping >/dev/null & sleep 1;"
        " cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    )
    shown = output_of(machine, waiting)
    assert "redis-cli --user tradingbot" in shown
    assert password not in shown


def test_exec_gives_the_exit_code_of_the_program(machine: hosts.Host) -> None:
    assert done(machine, "exec", "redis", "redis-cli", "--version").startswith("redis-cli ")
    assert done(machine, "exec", "tradingbot", "version")
    assert tradingbot(machine, "exec", "backend", "sh", "-c", "exit 7").returncode == 7
    assert "there is no program to run" in refused(machine, 2, "exec", "redis")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["restart", "mongo"], "name one of: postgres, redis, backend, worker, nginx"),
        (["build"], "ansible-playbook playbooks/build.yml"),
        (["build", "/etc"], "there is no Dockerfile in it"),
        (["maintenance", "perhaps"], "invalid choice: 'perhaps'"),
        (["logs", "--tail", "few"], "is not a number of lines"),
        (["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_wrong_use_changes_nothing(machine: hosts.Host, arguments: list[str], said: str) -> None:
    before = identities(machine)
    assert said in refused(machine, 2, *arguments)
    assert identities(machine) == before


@pytest.mark.usefixtures("deploying")
def test_during_a_deploy_the_backend_is_left_alone(machine: hosts.Host) -> None:
    before = identities(machine)
    for arguments in (["restart", "backend"], ["down"], ["up", "worker"], ["clean", "--yes"]):
        said = refused(machine, 3, *arguments)
        assert "tester@elsewhere" in said
        assert "deploy 9.9.9" in said
    assert identities(machine) == before
    assert "deploy 9.9.9, by tester@elsewhere, since" in done(machine, "health")


def test_restart_is_over_when_the_service_is_healthy(machine: hosts.Host) -> None:
    before = identities(machine)
    done(machine, "restart", "redis")
    after = identities(machine)
    assert {name for name in before if before[name] != after[name]} == {"redis"}
    assert services(machine)["redis"]["State"]["Health"]["Status"] == "healthy"


def test_build_makes_an_image_that_clean_removes(machine: hosts.Host) -> None:
    """Clean names all that goes, asks first, and leaves what a release or a container needs."""
    stopped = volume = "tradingbot-clean-test"
    base = services(machine)["redis"]["Config"]["Image"]
    dockerfile = f"FROM {base}\\nLABEL test=yes\\n"
    script = f"d=$(mktemp -d) && printf '{dockerfile}' > $d/Dockerfile && tradingbot build $d --version try-1"
    assert re.search(r"tradingbot-backend:try-1: \d+\.\d MB, \d+ s", output_of(machine, script, seconds=120))
    named = {"project": "tradingbot", "service": "old", "oneoff": "False"}
    labels = " ".join(f"--label com.docker.compose.{name}={value}" for name, value in named.items())
    before = identities(machine)
    output_of(machine, f"docker create --name {stopped} --volume {volume}:/data {labels} {base}")
    volumes = output_of(machine, "docker volume ls --quiet")
    images = set(output_of(machine, "docker image ls --quiet --no-trunc tradingbot-backend").split())

    found = tradingbot(machine, "clean")
    assert found.returncode == 2, "there is nobody to ask"
    assert re.search(rf"^container +{stopped} ", found.stdout, re.MULTILINE)
    assert re.search(r"^image +tradingbot-backend:try-1 ", found.stdout, re.MULTILINE)
    assert services(machine).keys() == before.keys() | {"old"}
    assert "Nothing was removed." in run_on(machine, "script -qec 'tradingbot clean' /dev/null", "n\n").stdout

    text = done(machine, "clean", "--yes")
    assert f"removed container {stopped}" in text
    assert "removed image tradingbot-backend:try-1" in text
    assert identities(machine) == before
    assert output_of(machine, "docker volume ls --quiet") == volumes
    output_of(machine, f"docker volume rm {volume}")
    left = set(output_of(machine, "docker image ls --quiet --no-trunc tradingbot-backend").split())
    assert left < images
    in_use = {one["Image"] for name, one in services(machine).items() if name.startswith(("backend", "worker"))}
    assert in_use <= left
    assert done(machine, "clean", "--yes") == "Nothing to remove.\n"


def test_clean_removes_nothing_when_the_record_is_broken(machine: hosts.Host) -> None:
    record = f"{PROJECT}/backend/slots.json"
    output_of(machine, f"mv {record} {record}.away")
    try:
        assert "it is not known which images are needed" in refused(machine, 1, "clean", "--yes")
    finally:
        output_of(machine, f"mv {record}.away {record}")


def test_maintenance_closes_all_but_webhooks(
    machine: hosts.Host, https_url: str, new_webhook_token: Callable[[], str]
) -> None:
    def ask(method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, https_url + path, verify=False, timeout=20, **options)

    webhook = f"/api/v1/webhooks/tradingview/{new_webhook_token()}"
    assert done(machine, "maintenance", "status") == "maintenance is off\n"
    try:
        assert done(machine, "maintenance", "on").startswith("maintenance is on.")
        assert done(machine, "maintenance", "status") == "maintenance is on\n"
        page = ask("GET", "/", headers={"Accept": "text/html"})
        assert page.status_code == 503
        assert int(page.headers["Retry-After"]) > 0
        assert "<h1>" in page.text
        alert = {"symbol": "BTCUSDT", "action": "buy", "order_id": uuid.uuid4().hex}
        assert ask("POST", webhook, json=alert).status_code == 202
        assert "ON: all but webhooks gets 503" in done(machine, "health")
    finally:
        done(machine, "maintenance", "off")
    assert ask("GET", "/").status_code == 200


def test_maintenance_that_nginx_does_not_take_is_taken_back(machine: hosts.Host) -> None:
    """A broken choice of the slot keeps nginx from any other state."""
    live = f"{PROJECT}/nginx/live"
    before = output_of(machine, f"cat {live}/maintenance.conf")
    output_of(machine, f"cp -p {live}/upstream.conf {live}/upstream.conf.away && echo nonsense > {live}/upstream.conf")
    try:
        assert "nginx did not take it: live/upstream.conf" in refused(machine, 1, "maintenance", "on")
        assert output_of(machine, f"cat {live}/maintenance.conf") == before
    finally:
        output_of(machine, f"mv {live}/upstream.conf.away {live}/upstream.conf")
    assert done(machine, "maintenance", "status") == "maintenance is off\n"


def test_down_and_up_keep_the_data(
    machine: hosts.Host, https_url: str, secrets: dict[str, str], new_webhook_token: Callable[[], str]
) -> None:
    webhook = f"{https_url}/api/v1/webhooks/tradingview/{new_webhook_token()}"
    alert = {"symbol": "BTCUSDT", "action": "buy", "order_id": uuid.uuid4().hex}
    identity = call("POST", webhook, json=alert).json()["id"]
    containers = {name: one[0] for name, one in identities(machine).items()}
    volumes = output_of(machine, "docker volume ls --quiet")
    assert "Data, logs and images are kept." in done(machine, "down")
    assert not any(one["State"]["Running"] for one in services(machine).values())
    assert output_of(machine, "docker volume ls --quiet") == volumes
    assert "it is exited" in tradingbot(machine, "health").stdout
    assert "it does not run" in refused(machine, 1, "psql", "-l")
    done(machine, "up")
    assert {name: one[0] for name, one in identities(machine).items()} == containers
    assert query(
        machine, secrets["vault_postgres_readonly_password"], f"SELECT count(*) FROM signals WHERE id = '{identity}'"
    ) == ["1"]
    wait_until(lambda: call("GET", f"{https_url}/api/v1/health").status_code == 200, 20, "HTTPS serves again")
    wait_until(lambda: tradingbot(machine, "health").returncode == 0, 30, "all is well again")
    assert output_of(machine, f"{COMPOSE} ps --quiet | wc -l") == "5"
