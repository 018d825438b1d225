#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that keeps a second deploy from a host while one is going on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: Keeps a second deploy from a host while one is going on
version_added: "0.3.0"
description:
  - Takes or gives back the lock of a host, C(/run/tradingbot/deploy.lock), which names its holder.
  - A lock that somebody else holds is refused, or waited for, with who holds it and since when.
  - The lock of a run that is dead is taken over. A run on the same controller is dead when its process is gone; for one
    on another controller that cannot be seen, so its lock ends after O(valid_seconds).
  - The lock does not outlive a reboot, as no run does.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  state:
    description: V(held) takes the lock, which the same run may do again; V(released) gives it back.
    type: str
    choices: [held, released]
    default: held
  purpose:
    description: What the lock is held for, shown to others.
    type: str
    default: ""
  wait_seconds:
    description: Seconds to wait for a lock that somebody else holds.
    type: int
    default: 0
  valid_seconds:
    description: Seconds after which a lock counts as left behind by a run that nobody can see.
    type: int
    default: 3600
  take_over:
    description: Whether to take the lock whoever holds it.
    type: bool
    default: false
  holder:
    description: Who takes it; set by the action plugin, from the run and the controller.
    type: dict
    default: {}
  break_id:
    description: Identity of a holder who is known to be dead; set by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode; takes nothing then.
    support: full
  diff_mode:
    description: Shows what changes.
    support: none
  action:
    description: Has a part that runs on the controller.
    support: full
notes:
  - Reports no change, for a lock says nothing about the state that a play is to bring about.
"""

EXAMPLES = r"""
- name: Hold the deploy lock
  tradingbot.stack.deploy_lock:
    purpose: deploy 0.3.0
    wait_seconds: 600

- name: Give the deploy lock back
  tradingbot.stack.deploy_lock:
    state: released
"""

RETURN = r"""
held:
  description: Whether this run holds the lock.
  type: bool
  returned: always
taken:
  description: Whether this call took it. What gives it back only then leaves it to the run that held it before.
  type: bool
  returned: always
holder:
  description: Who holds it, when it is somebody else.
  type: dict
  returned: when it is held by somebody else
took_over:
  description: The former holder, whose run is dead.
  type: dict
  returned: when the lock was taken over
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import failures

PATH = Path("/run/tradingbot/deploy.lock")


def read(text: str) -> dict[str, Any] | None:
    """Return the holder; None when nobody holds the lock, or what is written is no holder."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "id" in found and "since" in found else None


def decide(holder: dict[str, Any] | None, asked: dict[str, Any], now: float) -> dict[str, Any]:
    """Return what comes of asking for a lock that *holder* has: who has it now, and whether that was a take-over."""
    mine = asked["holder"]
    if holder is None or holder["id"] == mine["id"]:
        return {"held": True}
    expired = now - float(holder["since"]) > float(holder["valid_seconds"])
    if asked["take_over"] or expired or holder["id"] == asked["break_id"]:
        return {"held": True, "took_over": holder}
    return {"held": False, "holder": holder}


def ask(asked: dict[str, Any], check: bool) -> dict[str, Any]:
    """Take the lock, or give it back; with *check* only look. Return what came of it. Raises OSError."""
    with failures.naming(PATH):
        if check:
            holder, now = read(PATH.read_text() if PATH.exists() else ""), time.time()
            result = decide(holder, asked, now) if asked["state"] == "held" else {"held": False}
            return {"now": now, "taken": False, **result}
        PATH.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(PATH, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            holder, now = read(file.read()), time.time()
            mine = holder is not None and holder["id"] == asked["holder"]["id"]
            if asked["state"] == "held":
                result = decide(holder, asked, now)
                # Also when this run has it already: a long run does not lose it in its middle.
                content = asked["holder"] | {
                    "purpose": asked["purpose"],
                    "since": now,
                    "valid_seconds": asked["valid_seconds"],
                }
                write, text = result["held"], json.dumps(content)
            else:
                result, write, text = {"held": False}, mine, ""
            if write:
                file.seek(0)
                file.truncate()
                file.write(text)
    return {"now": now, "taken": result["held"] and not mine, **result}


def main() -> None:
    """Take the lock, or give it back."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
            "purpose": {"type": "str", "default": ""},
            "wait_seconds": {"type": "int", "default": 0},
            "valid_seconds": {"type": "int", "default": 3600},
            "take_over": {"type": "bool", "default": False},
            "holder": {"type": "dict", "default": {}},
            "break_id": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if not asked["holder"].get("id"):
        module.fail_json(msg="deploy_lock needs its action plugin, which says who asks: call it as a task of a play")
    try:
        result = ask(asked, module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"the deploy lock cannot be held. {failures.os_error_text(error)}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
