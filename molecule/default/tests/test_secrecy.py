"""Secrets are in their files and nowhere else: every value is searched for, in several spellings."""

from __future__ import annotations

import base64
import json
import secrets as random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.stack.api import call
from tests.stack.host import output_of, run_on, services
from tests.stack.plays import SITE, play
from tests.stack.secrecy import search, spellings
from tests.testbed import hosts

WATCH = """
import glob, json, sys, time
values = [value.encode() for value in json.load(sys.stdin)]
seen, names = set(), {}
end = time.monotonic() + 600
while time.monotonic() < end:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                line = file.read()
        except OSError:
            continue
        if line not in seen:
            seen.add(line)
            if any(value in line for value in values):
                print(line.split(b"\\0")[0].decode(errors="replace"), flush=True)
            if line.startswith(b"end-of-watch"):
                print(f"watched {len(seen)} command lines", flush=True)
                sys.exit()
    time.sleep(0.005)
"""
OWNERS = {"postgres": "70 70", "redis": "999 1000", "backend": "10001 10001"}


@pytest.fixture
def canary(machine: hosts.Host) -> Iterator[str]:
    """A value that is in every kind of place, in one spelling or another."""
    value = random.token_urlsafe(32) + "/+="
    encoded = base64.b64encode(f"ab:{value}:cd".encode()).decode()
    image = output_of(machine, "docker inspect --format '{{.Config.Image}}' tradingbot-nginx-1")
    name = "tradingbot-test-canary"
    plant = f"""
    docker run --detach --name {name} --init --env CANARY={value} --entrypoint sh {image} \\
      -c 'echo {encoded}; sleep 600' &&
    docker commit --change 'CMD ["echo", "{value}"]' {name} {name} &&
    docker volume create --label canary={quote(value, safe="")} {name} &&
    printf %s {encoded} > /var/tmp/{name} &&
    logger {quote(value, safe="")} &&
    systemctl set-environment CANARY={value} &&
    cp -p /opt/tradingbot/compose.yaml /run/{name} &&
    echo 'x-canary: {value}' >> /opt/tradingbot/compose.yaml
    """
    clean = f"""
    docker rm --force {name}; docker rmi --force {name}; docker volume rm {name}; rm -f /var/tmp/{name}
    mv /run/{name} /opt/tradingbot/compose.yaml; systemctl unset-environment CANARY
    """
    try:
        output_of(machine, plant)
        yield value
    finally:
        run_on(machine, clean)


def test_the_search_finds_what_is_there(machine: hosts.Host, canary: str) -> None:
    found = search(machine, [canary])
    assert {kind for kind, places in found.items() if not places} == set(), found
    assert "/var/tmp/tradingbot-test-canary" in found["file"]
    assert not any(search(machine, [random.token_urlsafe(32)]).values())


def test_secret_files_are_for_their_service_alone(machine: hosts.Host) -> None:
    folder = "/opt/tradingbot/secrets"
    assert output_of(machine, f"stat -c '%u %g %a' {folder}") == "0 0 700"
    files = output_of(machine, f"cd {folder} && find . -mindepth 1 -printf '%P %y %U %G %m\\n'").splitlines()
    assert len(files) >= 8
    for file in files:
        name, rest = file.split(" ", 1)
        owner = OWNERS.get(name.split("_")[0], OWNERS["backend"])
        if name == "redis_url":
            owner = OWNERS["backend"]
        assert rest == f"f {owner} 400", name


def test_each_service_sees_its_own_secrets_only(machine: hosts.Host) -> None:
    found = services(machine)
    seen = {
        service: output_of(machine, f"docker exec {found[service]['Id']} ls /run/secrets").split()
        for service in ("postgres", "redis", "backend", "worker")
    }
    own = ["database_url", "encryption_key", "encryption_key_old", "notify_urls", "redis_url", "secret_key"]
    own += ["sentry_dsn", "webhook_secret"]
    assert seen == {
        "postgres": ["postgres_pgpass"],
        "redis": ["redis_acl", "redis_health_password"],
        # The worker tells people; the owner of the schema is known to neither.
        "backend": [name for name in own if name != "notify_urls"],
        "worker": own,
    }
    assert run_on(machine, "docker exec tradingbot-nginx-1 ls /run/secrets").returncode != 0


def test_no_secret_is_anywhere_else(
    machine: hosts.Host, secrets: dict[str, str], https_url: str, api_key: str, new_webhook_token: Callable[[], str]
) -> None:
    """After they were used: by an alert with the webhooks' secret in it, and by a reader."""
    assert len(secrets) >= 8
    token = new_webhook_token()
    order = f"secret-{time.time_ns()}"
    alert = {"ticker": "BTCUSDT", "action": "buy", "order_id": order, "secret": secrets["vault_backend_webhook_secret"]}
    assert call("POST", f"{https_url}/api/v1/webhooks/tradingview/{token}", json=alert).status_code == 202
    wrong = call(
        "POST", f"{https_url}/api/v1/webhooks/tradingview/{token}", json=alert | {"secret": "wrong", "price": []}
    )
    assert wrong.status_code in {403, 422}
    assert call("GET", f"{https_url}/api/v1/signals", headers={"X-API-Key": api_key}).status_code == 200
    found = search(machine, [*secrets.values(), api_key, token])
    assert not any(found.values()), found


def test_a_play_that_changes_every_secret_shows_none(
    machine: hosts.Host, inventory: str, secrets: dict[str, str], https_url: str, tmp_path: Path
) -> None:
    """With all that Ansible can say, and with an eye on the host's process list; then the same way back."""
    new = {name: random.token_hex(24) for name in secrets}
    new["vault_backend_encryption_key"] = base64.urlsafe_b64encode(random.token_bytes(32)).decode()
    new["vault_backend_encryption_key_old"] = secrets["vault_backend_encryption_key"]
    new["vault_backend_notify_urls"] = f"json://{random.token_hex(24)}@127.0.0.1:9/"
    new["vault_backend_sentry_dsn"] = f"http://{random.token_hex(24)}@127.0.0.1:9/1"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(new))
    values = spellings([*secrets.values(), *new.values()])

    program = base64.b64encode(WATCH.encode()).decode()
    command = f'python3 -c "$(echo {program} | base64 -d)"'
    with subprocess.Popen(
        [*hosts.ssh(machine), "sudo", "sh", "-c", f"'{command}'"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdin
        watch.stdin.write(json.dumps(values))
        watch.stdin.close()
        before = services(machine)
        there = play(inventory, SITE, "--diff", "-vvv", "--extra-vars", f"@{changed}")
        between = services(machine)
        back = play(inventory, SITE, "--diff", "-vvv")
        run_on(machine, "bash -c 'exec -a end-of-watch sleep 2'")
        assert watch.stdout
        seen = watch.stdout.read().splitlines()

    for done in (there, back):
        assert done.code == 0, done.said[-3000:]
        assert "censored" in done.said, "the tasks with secrets are in it"
        assert "invocation:" in done.said, "and all that modules were given"
        assert [value for value in values if value in done.said] == []
    for service in ("backend", "worker"):
        containers = {found[service]["Id"] for found in (before, between, services(machine))}
        assert len(containers) == 3, f"{service} goes on with the secrets that it was started with"
    assert seen[-1].startswith("watched ")
    assert int(seen[-1].split()[1]) > 100
    assert seen[:-1] == [], "programs with a secret on their command line"
    found = search(machine, [*secrets.values(), *new.values()])
    assert not any(found.values()), found
    assert call("GET", f"{https_url}/api/v1/health").status_code == 200
