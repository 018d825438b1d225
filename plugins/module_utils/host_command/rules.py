# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `rules`: loads the stack's firewall and Docker's rules again, where others have flushed them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from .. import stack_network, stack_services, target
from ..stack_health import last_line, run
from .stack import OK, RefusedError, Stack

TIMEOUT = 120.0
# Seconds before each look at Docker's rules, until one succeeds.
LOOK_PAUSES = (0.0, 1.0, 3.0)
FIREWALL = "tradingbot-firewall.service"
ENGINE = "docker.service"


def rules(stack: Stack, _: argparse.Namespace) -> int:
    """Load what is missing, and say what that was."""
    try:
        if stack.firewall:
            load_firewall()
    finally:
        # Clients need Docker's rules, whatever became of the firewall's.
        load_engine_rules(stack)
    end_dead_handover(stack)
    return OK


def end_dead_handover(stack: Stack) -> None:
    """Let new connections reach nginx where an interrupted replacement leads them to a second one that is gone.

    Raises RefusedError when that cannot be done.
    """
    try:
        address = stack_network.handover()
        if address and not is_second(stack, address):
            stack_network.end_handover()
            print("nginx's own container gets new connections: the second one, of an interrupted replacement, is gone")
    except stack_network.LookError as error:
        fix = f"`nft delete table {' '.join(stack_network.HANDOVER)}`, when no site.yml runs"
        raise RefusedError(stack_network.REPLACEMENT, str(error), fix) from error


def is_second(stack: Stack, address: str) -> bool:
    """Return whether a second nginx has an address."""
    if not engine_runs():
        # Not asked: its socket would start it. Containers may run without it (live-restore).
        return stack_network.connects(address, stack_services.NGINX_PORT)
    there = [one for one in stack.containers(one_offs=True) if stack_services.is_second_nginx(one)]
    return address in {net.get("IPAddress") for one in there for net in stack_network.networks(one)}


def engine_runs() -> bool:
    """Return whether the engine runs, or is about to."""
    return run(["systemctl", "is-active", ENGINE], TIMEOUT)[1].strip() not in ("inactive", "failed", "unknown")


def load_firewall() -> None:
    """Load the confirmed rules unless they are. Raises RefusedError when there are none, or they cannot be loaded."""
    if not stack_network.CONFIRMED.exists():
        why = f"{stack_network.CONFIRMED} is not there: {stack_network.UNCONFIRMED}; what is loaded stays as it is"
        raise RefusedError(stack_network.FIREWALL, why, "run site.yml on the controller")
    try:
        if not stack_network.firewall_difference():
            return
    except stack_network.LookError as error:
        print(f"whether the firewall's rules are as confirmed is unknown: {error}")
    # Never by a stop, which takes the table away: a reload replaces it as one transaction, or changes nothing.
    systemctl("reload-or-restart", FIREWALL)
    print("the firewall's rules are loaded again")


def load_engine_rules(stack: Stack) -> None:
    """Have the engine write its rules again where they are gone. Raises RefusedError when they stay away."""
    if not engine_runs():
        print("Docker does not run; it writes its rules when it starts")
        return
    # Rules that are flushed while the engine starts are lost to it; so it is not stopped in that.
    systemctl("start", ENGINE)
    if not missing(stack):
        print("Docker's rules are in place")
        return
    refuse_to_stop_containers()
    # It writes them when it starts and not when it reloads; containers go on running (live-restore).
    systemctl("reset-failed", ENGINE)
    systemctl("restart", ENGINE)
    print("Docker has written its rules again")
    lost = forgotten(stack)
    if lost:
        # A flush has met an earlier start of the engine, which then forgot their ports.
        code, _out, err = run(["docker", "restart", *lost], TIMEOUT)
        if code:
            raise RefusedError("docker restart", last_line(err), f"`docker restart {' '.join(lost)}`")
        print(f"started again, for Docker had forgotten their ports: {', '.join(lost)}")
    left = missing(stack)
    if left:
        why = f"they are still missing for {', '.join(left)}"
        raise RefusedError(stack_network.RULES, why, f"`journalctl -u {ENGINE} -n 50` says why")


def refuse_to_stop_containers() -> None:
    """Raise RefusedError when a restart of the engine would stop its containers."""
    if not (target.docker_get("/info") or {}).get("LiveRestoreEnabled"):
        why = "they are gone, and a restart of Docker, which writes them, stops all containers: `live-restore` is off"
        fix = (
            "take `live-restore: false` out of docker_host_daemon_options and run site.yml; or, when a stop of all"
            f" services suits you, `systemctl restart {ENGINE}`"
        )
        raise RefusedError(stack_network.RULES, why, fix)


def running(stack: Stack) -> list[dict[str, Any]]:
    """Return the stack's containers that run. Raises RefusedError when no engine answers."""
    return [one for one in stack.containers() if (one.get("State") or {}).get("Running")]


def missing(stack: Stack) -> list[str]:
    """Return the ports and networks that have no rules of Docker's. Raises RefusedError when that is unknown."""
    containers = running(stack)
    return certain(lambda: stack_network.missing_rules(containers))


def forgotten(stack: Stack) -> list[str]:
    """Return the names of containers whose ports have no rules of Docker's. Raises RefusedError as missing does."""
    containers = running(stack)
    return certain(lambda: [str(one["Name"]).lstrip("/") for one in containers if stack_network.missing_ports(one)])


def certain(look: Callable[[], list[str]]) -> list[str]:
    """Return what *look* finds; a busy host is looked at again. Raises RefusedError when that fails each time."""
    failed = ""
    for pause in LOOK_PAUSES:
        time.sleep(pause)
        try:
            return look()
        except stack_network.LookError as error:
            failed = str(error)
    why = f"whether they are loaded is unknown, and nothing was restarted for that: {failed}"
    fix = "`tradingbot rules` again; if it stays, mend what it names"
    raise RefusedError(f"look at {stack_network.RULES}", why, fix)


def systemctl(verb: str, unit: str) -> None:
    """Change a unit, and wait for it. Raises RefusedError when it fails."""
    code, _, err = run(["systemctl", verb, unit], TIMEOUT)
    if code:
        raise RefusedError(unit, last_line(err), f"`systemctl status {unit}` says more")
