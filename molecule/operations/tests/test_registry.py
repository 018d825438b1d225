"""Images from and to a registry that wants a password, which no command line, file or output ever shows."""

from __future__ import annotations

import contextlib
import json
import secrets as random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import plays
from tests.stack.host import output_of, run_on
from tests.stack.secrecy import search
from tests.testbed import hosts, images

# On the host's own loopback, where Docker needs no certificate.
REGISTRY = "127.0.0.1:5001"
REPOSITORY = f"{REGISTRY}/tradingbot-backend"
VERSION = "7.8.9"
USER = "robot"
HASH = "chomp($_ = <STDIN>); print 'robot:', crypt($_, '$2y$05$' . substr('tradingbottradingbott.', 0, 22)), qq(\\n)"
# Looks, until told to stop, at what would be gone after the run: command lines, and the login itself.
WATCH = """
import glob, json, os, sys, time
password, stop = sys.stdin.readline().strip().encode(), "/run/tradingbot-watch.stop"
shown, logins, looks = set(), {}, 0
while not os.path.exists(stop):
    looks += 1
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                if password in file.read():
                    shown.add(path)
        except OSError:
            continue
    for path in glob.glob("/run/tradingbot/registry/*/config.json"):
        try:
            modes = [oct(os.stat(at).st_mode & 0o777) for at in (path, "/run/tradingbot/registry")]
        except OSError:
            continue
        logins[path] = modes
    time.sleep(0.01)
print(json.dumps({"shown": sorted(shown), "logins": logins, "looks": looks}))
"""
# Asks the registry itself what it has. The host has no curl.
TAGS = f"""
import base64, sys, urllib.request
request = urllib.request.Request("http://{REGISTRY}/v2/tradingbot-backend/tags/list")
request.add_header("Authorization", "Basic " + base64.b64encode(f"{USER}:{{sys.stdin.read()}}".encode()).decode())
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


@pytest.fixture(scope="module")
def password() -> str:
    """The password of the registry's only user."""
    return random.token_urlsafe(32)


@pytest.fixture(scope="module", autouse=True)
def registry(machine: hosts.Host, password: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A registry that only the host reaches, and that wants a password."""
    image, name = images.registry_image(), f"tradingbot-locked-registry-{machine.name}"
    made = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "perl", image, "-e", HASH]
    users = subprocess.run(made, input=password, check=True, capture_output=True, text=True).stdout
    file = tmp_path_factory.mktemp("registry") / "htpasswd"
    file.write_text(users)
    settings = {
        "REGISTRY_HTTP_ADDR": REGISTRY,
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "tests",
        "REGISTRY_AUTH_HTPASSWD_PATH": "/etc/docker/registry/htpasswd",
    }
    environment = [part for key, value in settings.items() for part in ("--env", f"{key}={value}")]
    network = ["--network", f"container:{hosts.container(machine.name)}"]
    subprocess.run(["docker", "create", "--name", name, *network, *environment, image], check=True, capture_output=True)
    try:
        subprocess.run(["docker", "cp", str(file), f"{name}:/etc/docker/registry/htpasswd"], check=True)
        subprocess.run(["docker", "start", name], check=True, capture_output=True)
        output_of(
            machine, f"timeout 20 bash -c 'until echo > /dev/tcp/{REGISTRY.replace(':', '/')}; do sleep 0.2; done'"
        )
        yield
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=True, capture_output=True)
        run_on(machine, f"docker rmi {REPOSITORY}:{VERSION} {REPOSITORY}:latest tradingbot-backend:{VERSION}-test")


def play(inventory: str, folder: Path, tasks_from: str, **variables: Any) -> str:
    """Run tasks of the role with *variables*, as talkative as Ansible gets; return all that was said."""
    told = folder / "variables.json"
    told.write_text(json.dumps(variables))
    role = {"name": "tradingbot.stack.backend", "tasks_from": tasks_from}
    play = {"hosts": "backend", "become": True, "tasks": [{"ansible.builtin.include_role": role}]}
    (folder / "play.yml").write_text(json.dumps([play]))
    done = plays.play(inventory, str(folder / "play.yml"), "-vvv", "--extra-vars", f"@{told}")
    return f"exit code {done.code}\n{done.said}"


@contextlib.contextmanager
def watched(machine: hosts.Host, password: str) -> Iterator[dict[str, Any]]:
    """Watch the host during a block; what was seen is in the result afterwards."""
    seen: dict[str, Any] = {}
    output_of(machine, "cat > /run/tradingbot-watch.py && rm -f /run/tradingbot-watch.stop", WATCH)

    def watch() -> None:
        seen.update(json.loads(output_of(machine, "python3 /run/tradingbot-watch.py", f"{password}\n", seconds=300)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        output_of(machine, "touch /run/tradingbot-watch.stop")
        watcher.join()
        output_of(machine, "rm -f /run/tradingbot-watch.*")


def login(password: str) -> dict[str, str]:
    """Return the variables that name the registry and its user."""
    return {
        "backend_registry_url": REGISTRY,
        "backend_registry_username": USER,
        "backend_registry_password": password,
    }


def check_secrecy(machine: hosts.Host, password: str, seen: dict[str, Any], said: str) -> None:
    """Check that the login was in memory, for root, while it was used, and that the password is nowhere now."""
    assert seen["looks"] > 10
    assert seen["shown"] == []
    assert set(map(tuple, seen["logins"].values())) == {("0o600", "0o700")}, "it was there while it was needed"
    assert output_of(machine, "stat --file-system --format %T /run") == "tmpfs"
    assert run_on(machine, "ls -A /run/tradingbot/registry").stdout == ""
    assert not any(places := search(machine, [password]).values()), places
    assert password not in said


def test_an_image_is_pushed_as_its_version_and_latest(
    inventory: str, machine: hosts.Host, password: str, tmp_path: Path
) -> None:
    running = output_of(machine, "docker inspect --format '{{.Image}}' tradingbot-worker-1")
    output_of(machine, f"docker tag {running} tradingbot-backend:{VERSION}-test")
    variables = login(password) | {
        "backend_version": VERSION,
        "backend_push": REPOSITORY,
        "__backend_registry_tasks": "push.yml",
        "__backend_local_image": f"tradingbot-backend:{VERSION}-test",
    }
    with watched(machine, password) as seen:
        said = play(inventory, tmp_path, "registry", **variables)
    assert said.startswith("exit code 0"), said
    check_secrecy(machine, password, seen, said)
    tags = json.loads(output_of(machine, "python3 /dev/fd/3 3<<'END'\n" + TAGS + "\nEND", password))["tags"]
    assert sorted(tags) == sorted([VERSION, "latest"])


def test_it_is_pulled_when_it_is_not_there(inventory: str, machine: hosts.Host, password: str, tmp_path: Path) -> None:
    output_of(machine, f"docker rmi {REPOSITORY}:{VERSION} {REPOSITORY}:latest")
    variables = login(password) | {"backend_version": VERSION, "backend_image": f"{REPOSITORY}:{VERSION}"}
    with watched(machine, password) as seen:
        said = play(inventory, tmp_path, "pull", **variables)
    assert said.startswith("exit code 0"), said
    check_secrecy(machine, password, seen, said)
    again = play(inventory, tmp_path, "pull", **(variables | {"backend_registry_password": "out of date"}))
    assert again.startswith("exit code 0"), "an image that is there needs no login"


def test_a_wrong_password_is_said_without_it(
    inventory: str, machine: hosts.Host, password: str, tmp_path: Path
) -> None:
    wrong = random.token_urlsafe(32)
    variables = login(wrong) | {"backend_image": f"{REPOSITORY}:latest", "backend_pull": "always"}
    said = play(inventory, tmp_path, "pull", **variables)
    assert not said.startswith("exit code 0")
    assert f"backend_registry_username and backend_registry_password: {REGISTRY} does not accept them" in said
    assert "Way out: correct `vault_backend_registry_password`" in " ".join(said.split())
    assert wrong not in said
    assert run_on(machine, "ls -A /run/tradingbot/registry").stdout == ""


def test_a_registry_that_is_away_is_another_thing(inventory: str, password: str, tmp_path: Path) -> None:
    variables = login(password) | {"backend_registry_url": "127.0.0.1:5002"}
    said = play(inventory, tmp_path, "pull", **variables, backend_image=f"{REPOSITORY}:latest", backend_pull="always")
    assert not said.startswith("exit code 0")
    assert "backend_registry_url: no login at 127.0.0.1:5002" in said
    assert password not in said
