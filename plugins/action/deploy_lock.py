# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Action behind M(tradingbot.stack.deploy_lock): says who asks, sees whether a holder is dead, and waits."""

from __future__ import annotations

import getpass
import os
import platform
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
POLL_SECONDS = 2


def started(pid: int) -> str | None:
    """Return when a process was started, as a word to compare; None when there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # there is one, of somebody else
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return ""  # not Linux: a number that is used again is not noticed
    text = stat.read_text()
    # proc(5): the 22nd field; the second is the name in parentheses, which may hold blanks. Z: dead, not yet buried.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def this_machine() -> str:
    """Return what tells this machine's processes from others': names are not unique, and containers count their own."""
    places = [Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")]
    boot = places[0].read_text().strip() if places[0].exists() else ""
    namespace = os.readlink(places[1]) if places[1].is_symlink() else ""
    return f"{platform.node()} {boot} {namespace}".strip()


def this_run() -> dict[str, Any]:
    """Return who this run is: its process is the parent of the one that runs an action."""
    pid = os.getppid()
    begun = started(pid) or ""
    controller = this_machine()
    return {
        "id": f"{controller}:{pid}:{begun}",
        "who": f"{getpass.getuser()}@{platform.node()}",
        "controller": controller,
        "pid": pid,
        "started": begun,
    }


def is_dead(holder: dict[str, Any]) -> bool:
    """Tell whether the run that holds a lock is known to have ended: only one on this controller can be seen."""
    if holder.get("controller") != this_machine():
        return False
    now = started(int(holder["pid"]))
    # "" is a process that there is, and that does not show when it began.
    return now is None or (now != "" and holder["started"] != "" and now != holder["started"])


def described(holder: dict[str, Any], now: float) -> str:
    """Return who holds the lock, for what, and since when."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(holder["since"])))
    minutes = max(now - float(holder["since"]), 0) / 60
    purpose = f", for: {holder['purpose']}" if holder.get("purpose") else ""
    return f"{holder['who']} since {since} ({minutes:.0f} min; process {holder['pid']}){purpose}"


class ActionModule(ActionBase):
    """Takes the lock, or waits for it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result; fails when somebody else keeps the lock."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        arguments = self._task.args | {"holder": this_run()}
        until = time.monotonic() + int(self._task.args.get("wait_seconds", 0))
        told = False
        while True:
            answer = self._execute_module(module_args=arguments, task_vars=task_vars)
            result.update(answer)
            if result.get("failed") or result["held"] or arguments.get("state") == "released":
                break
            holder = result["holder"]
            if is_dead(holder):
                arguments["break_id"] = holder["id"]
                continue
            text = described(holder, result["now"])
            if time.monotonic() >= until:
                raise AnsibleActionFail(
                    f"The deploy lock of this host is held by {text}. Wait for it with -e backend_deploy_wait=600;"
                    " or, if you know that that run is dead, take it over with -e backend_deploy_take_over=true."
                )
            if not told:
                display.display(f"waiting for the deploy lock, held by {text}")
                told = True
            time.sleep(POLL_SECONDS)
        if "took_over" in result:
            display.warning(f"took over the deploy lock of {described(result['took_over'], result['now'])}")
        return result
