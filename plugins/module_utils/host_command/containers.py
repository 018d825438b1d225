# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Verbs that start, stop, show and enter containers."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from typing import NoReturn

from .. import container_failure, stack_health, stack_services, stack_table
from .stack import FAILED, OK, USAGE, RefusedError, Stack, become, call, in_container, without_docker

WAIT_SECONDS = "120"
# Compose (2.26) begins each line of a log with it.
ERASE = "\x1b[2K"
# What nginx's lines are called in the host's journal.
NGINX = "tradingbot_nginx"
# Stopped last, so that nothing asks a database that is gone.
STORES = ("postgres", "redis")


def up(stack: Stack, given: argparse.Namespace) -> int:
    """Start containers that are stopped, make those that are missing, and wait until they are healthy."""
    services = stack.compose_services(given.service)
    stack.refuse_while_deploying(services, given.ignore_lock)
    return _start(stack, services)


def _start(stack: Stack, services: list[str]) -> int:
    wait = ["--detach", "--no-deps", "--quiet-pull", "--wait", "--wait-timeout", WAIT_SECONDS]
    if call(stack.compose("up", *wait, *services)) != 0:
        rows = {row["service"]: row for row in stack_services.describe_all(stack.containers())}
        for name in services:
            if not rows.get(name, {}).get("healthy"):
                print(
                    f"{name} is not up.\n{container_failure.why(name, stack.project_dir)}",
                    file=sys.stderr,
                )
        return FAILED
    return OK


def down(stack: Stack, given: argparse.Namespace) -> int:
    """Stop containers and keep them, with their logs; data is not touched."""
    services = stack.compose_services(given.service)
    if not given.service:
        # A second slot that an interrupted deploy has left is stopped, too.
        there = {stack_services.service_of(one) for one in stack.containers()}
        services += sorted(name for name in there - set(services) if name.startswith("backend-"))
    stack.refuse_while_deploying(services, given.ignore_lock)
    for some in ([name for name in services if name not in STORES], [name for name in services if name in STORES]):
        if some and call(stack.compose("stop", *some)) != 0:
            return FAILED
    print("Stopped, also after a reboot, until `tradingbot up`. Data, logs and images are kept.")
    return OK


def restart(stack: Stack, given: argparse.Namespace) -> int:
    """Stop and start containers in place, and wait until they are healthy."""
    services = stack.compose_services(given.service)
    stack.refuse_while_deploying(services, given.ignore_lock)
    if call(stack.compose("restart", "--no-deps", *services)) != 0:
        return FAILED
    return _start(stack, services)


def logs(stack: Stack, given: argparse.Namespace) -> int:
    """Show the end of the logs."""
    options = ["--tail", given.tail]
    options += ["--follow"] if given.follow else []
    options += ["--since", given.since] if given.since else []
    names = stack.compose_services(given.service)
    command = stack.compose("logs", *options, *names)
    show = call if sys.stdout.isatty() else _plainly
    if "nginx" not in names:
        return become(command) if sys.stdout.isatty() else _plainly(command)
    with _journal(given) as running:
        if not given.follow:
            code = show(command)
            _print_journal(running)
            return code
        threading.Thread(target=_print_journal, args=(running,), daemon=True).start()
        try:
            return show(command)
        finally:
            running.terminate()


def _journal(given: argparse.Namespace) -> subprocess.Popen[str]:
    """Start a reader of what nginx logs into the host's journal, which is all but why it does not start."""
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--identifier={NGINX}", f"--lines={given.tail}"]
    command += ["--follow"] if given.follow else []
    if given.since:
        # How long ago has a minus there, and a time a blank.
        ago = re.fullmatch(r"([0-9.]+[a-z]+)+", given.since)
        command.append(f"--since={f'-{ago[0]}' if ago else given.since.replace('T', ' ').replace('Z', ' UTC')}")
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    except FileNotFoundError as error:
        raise RefusedError("journalctl", str(error.strerror), "install systemd's journal") from error


def _print_journal(running: subprocess.Popen[str]) -> None:
    for line in running.stdout or ():
        print(f"nginx-1  | {line}", end="", flush=True)


def _plainly(command: list[str]) -> int:
    """Run a program and write its lines without what they hold for a terminal, whatever it was told of that."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as running:
            for line in running.stdout or ():
                print(line.replace(ERASE, ""), end="", flush=True)
    except FileNotFoundError as error:
        raise without_docker(error) from error
    return running.returncode


def ps(stack: Stack, given: argparse.Namespace) -> int:
    """Show the containers."""
    rows = stack_services.describe_all(stack.containers())
    if given.json:
        print(json.dumps(rows, indent=2))
    else:
        print(stack_table.services_text(rows, stack.slots.active))
    return OK


def health(stack: Stack, given: argparse.Namespace) -> int:
    """Show whether all is well."""
    report = stack_health.look(stack.health_settings())
    print(json.dumps(report, indent=2) if given.json else stack_table.full_text(report))
    return OK if report["healthy"] else FAILED


def execute(stack: Stack, arguments: list[str]) -> NoReturn:
    """Run a program in a container: that of the service named first, else the worker's."""
    known = {*stack.services, *(f"backend-{slot}" for slot in stack.slots.releases)}
    service, command = (arguments[0], arguments[1:]) if arguments and arguments[0] in known else ("worker", arguments)
    if not command:
        why = "there is no program to run"
        raise RefusedError(
            "exec", why, "like `tradingbot exec worker tradingbot check`; services: " + ", ".join(known), USAGE
        )
    become(in_container(stack.running(service), command))


def psql(stack: Stack, arguments: list[str]) -> NoReturn:
    """Run psql as the superuser, in the backend's database unless another one is named."""
    command = ["psql", "--username=postgres", *arguments]
    # A host of the database alone does not know which one that is.
    database = [f"PGDATABASE={_url(stack, 'database_url').path[1:]}"] if "backend" in stack.services else []
    become(in_container(stack.running("postgres"), command, *(word for name in database for word in ("--env", name))))


def redis_cli(stack: Stack, arguments: list[str]) -> NoReturn:
    """Run redis-cli as the backend's user. The password goes by the environment: no command line shows it."""
    url = _url(stack, "redis_url")
    identity = stack.running("redis")
    os.environ["REDISCLI_AUTH"] = urllib.parse.unquote(url.password or "")
    user = urllib.parse.unquote(url.username or "default")
    command = ["redis-cli", "--user", user, "--no-auth-warning", *arguments]
    become(in_container(identity, command, "--env", "REDISCLI_AUTH"))


def _url(stack: Stack, name: str) -> urllib.parse.SplitResult:
    """Return an address that is among the backend's secrets."""
    path = stack.project_dir / "secrets" / name
    try:
        return urllib.parse.urlsplit(path.read_text().strip())
    except (OSError, ValueError) as error:
        why = f"it cannot be read ({getattr(error, 'strerror', None) or 'it is no URL'})"
        raise RefusedError(str(path), why, "this host needs the backend's secrets: run site.yml") from error
