# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The verb `rules`: loads the stack's firewall and Docker's rules again, where others have flushed them."""

from __future__ import annotations

import argparse
from typing import Any

from .. import stack_network, stack_services
from ..stack_health import last_line, run
from .stack import OK, RefusedError, Stack

TIMEOUT = 120.0
FIREWALL = "tradingbot-firewall.service"
ENGINE = "docker.service"


def rules(stack: Stack, _: argparse.Namespace) -> int:
    """Load what is missing, and say what that was."""
    if stack.firewall and stack_network.firewall_difference():
        systemctl("restart", FIREWALL)
        print("the firewall's rules are loaded again")
    if run(["systemctl", "is-active", ENGINE], TIMEOUT)[1].strip() in ("inactive", "failed", "unknown"):
        print("Docker does not run; it writes its rules when it starts")
        return OK
    # Rules that are flushed while the engine starts are lost to it; so it is not stopped in that.
    systemctl("start", ENGINE)
    if not missing(stack):
        print("Docker's rules are in place")
        return OK
    # It writes them when it starts and not when it reloads; containers go on running (live-restore).
    systemctl("reset-failed", ENGINE)
    systemctl("restart", ENGINE)
    print("Docker has written its rules again")
    lost = [str(one["Name"]).lstrip("/") for one in running(stack) if stack_network.missing_ports(one)]
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
    return OK


def running(stack: Stack) -> list[dict[str, Any]]:
    """Return the stack's containers that run."""
    found = stack_services.containers(stack.project) or []
    return [one for one in found if (one.get("State") or {}).get("Running")]


def missing(stack: Stack) -> list[str]:
    """Return the ports and networks that have no rules of Docker's."""
    return stack_network.missing_rules(running(stack))


def systemctl(verb: str, unit: str) -> None:
    """Change a unit, and wait for it. Raises RefusedError when it fails."""
    code, _, err = run(["systemctl", verb, unit], TIMEOUT)
    if code:
        raise RefusedError(unit, last_line(err), f"`systemctl status {unit}` says more")
