#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that changes which release of the backend a host runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backend_slots
short_description: Changes which release of the backend a host runs, without losing a request
version_added: "0.3.0"
description:
  - A host has one or two slots for the backend. With two, a new release starts in the idle slot and is asked until it
    is ready; then the web server is told to use it, requests in hand are waited for, the worker is replaced, and the
    former slot is stopped. With one, the release is replaced in place, with a pause of some seconds.
  - A failure before the web server is told leaves the former release serving; a failure after it leads back to it.
  - The whole change is one call on the host, so that a connection that breaks, or a controller that dies, stops nothing
    half way. What the death of this host leaves half done is finished or taken back by the next call.
  - Writes C(backend/slots.json), the record, and what follows from it, C(backend/compose.yaml) and
    C(nginx/live/upstream.conf); and a line in C(backend/deploys.jsonl) for every change that was tried.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  project_dir:
    description: Folder of the Compose project.
    type: path
    required: true
  slots:
    description: Names of the slots, one or two, each with its address on the stack's network.
    type: dict
    required: true
  publish:
    description: Published ports of the slot, in Compose's short form; only with one slot.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(looked) changes nothing and returns what is there.
      - V(present) brings O(release) to where requests and signals arrive.
      - V(previous) goes back to the release that O(release) names, or, when it is empty, to the one that ran before.
        Refuses a release that cannot live with the database's schema.
      - V(restarted) starts the release that runs anew, in the other slot if there is one.
      - V(failed) only writes O(reason) into the log, for a change that failed before it came to the slots.
    type: str
    choices: [looked, present, previous, restarted, failed]
    default: present
  release:
    description: Release to run; its files are in C(backend/releases). With O(state=previous) also a version.
    type: str
    default: ""
  image:
    description: Name of an image, for O(state=looked), which tells whether the host has it.
    type: str
    default: ""
    version_added: "0.4.0"
  about:
    description:
      - What is known of O(release), to be kept with it, for O(state=present) - C(version), C(image), C(secrets) (names
        of the files that it reads) and C(schema_head) (the schema revision that it brings).
    type: dict
    default: {}
  ready_timeout:
    description: Seconds that a slot, and the worker, may take until they are ready.
    type: float
    default: 120
  settle_seconds:
    description:
      - Seconds in which the web server's former processes may still take requests. The new slot is watched meanwhile.
    type: float
    default: 2.5
  drain_timeout:
    description: Seconds to wait for requests in hand before the former slot is told to stop.
    type: float
    default: 20
  keep:
    description: Number of releases to keep for going back, of those that ran last. At least 3.
    type: int
    default: 5
  who:
    description: Who asks for the change, for the log.
    type: str
    default: ""
  reason:
    description: Why a change failed, for O(state=failed).
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and tell whether the release would change.
    support: full
  diff_mode:
    description: Shows what changes.
    support: none
"""

EXAMPLES = r"""
- name: Ensure the release runs
  tradingbot.stack.backend_slots:
    project_dir: /opt/tradingbot
    slots: {blue: 172.20.255.251, green: 172.20.255.252}
    release: 0.3.0-1a2b3c4d

- name: Go back to the release that ran before
  tradingbot.stack.backend_slots:
    project_dir: /opt/tradingbot
    slots: {blue: 172.20.255.251, green: 172.20.255.252}
    state: previous
"""

RETURN = r"""
active:
  description: Slot that gets the requests; null before the first deploy.
  type: str
  returned: success
release:
  description: Release in that slot.
  type: str
  returned: success
settled:
  description: Whether no earlier change was left half done, before this call.
  type: bool
  returned: success
kept:
  description: Releases that are kept, the last used first, each with its version, image and schema revision.
  type: list
  elements: dict
  returned: success
ready:
  description: Whether the slot that gets the requests says that it is ready, with database and schema.
  type: bool
  returned: when O(state=looked)
image:
  description: What the engine says of O(image); null when the host does not have it.
  type: dict
  returned: when O(state=looked)
memory_available_mb:
  description: Memory that a second slot could have, in MiB (proc(5), MemAvailable).
  type: int
  returned: when O(state=looked)
disk_free_mb:
  description: Free space where the engine keeps images, in MiB.
  type: int
  returned: when O(state=looked)
from:
  description: Release before the change.
  type: str
  returned: success, when a change was asked for
steps:
  description: What was done, each with its seconds and whether it went well.
  type: list
  elements: dict
  returned: when a change was tried
removed:
  description: Releases and images that are not kept any longer.
  type: list
  elements: str
  returned: when a change was made
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import nginx_engine
from ansible_collections.tradingbot.stack.plugins.module_utils import slots_record as records
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import alone, explained, on_its_own
from ansible_collections.tradingbot.stack.plugins.module_utils.nginx_replacement import Replacement
from ansible_collections.tradingbot.stack.plugins.module_utils.slots_engine import Engine
from ansible_collections.tradingbot.stack.plugins.module_utils.slots_switch import FAILURES, READY, Change, Limits
from ansible_collections.tradingbot.stack.plugins.module_utils.target import (
    docker_get,
    docker_roots,
    free_mb,
    memory_available_mb,
)

ACTIONS = {"present": "deploy", "previous": "rollback", "restarted": "restart", "failed": "deploy"}


def facts(layout: records.Layout) -> dict[str, Any]:
    """Return what is there."""
    record = records.read_record(layout)
    return {
        "active": record.active,
        "release": record.release,
        "settled": record.active is None or (not record.leftovers() and record.worker == record.release),
        "kept": records.kept(layout),
    }


def looked(layout: records.Layout, image: str = "") -> dict[str, Any]:
    """Return what is there, and what room there is."""
    found = facts(layout)
    active = found["active"]
    known = active in layout.addresses
    return found | {
        "ready": known and Engine(layout).request(active, "GET", READY)[0] == 200,
        "image": docker_get(f"/images/{image}/json") if image else None,
        "memory_available_mb": memory_available_mb(),
        "disk_free_mb": min(free_mb(root) for root in docker_roots()),
    }


def wanted_release(asked: dict[str, Any], layout: records.Layout, work: Change) -> str:
    """Return the release to run. Raises SlotError when there is none, or the database's schema is too new for it."""
    wanted = asked["release"] or work.record.release
    if asked["state"] == "previous":
        wanted = records.choose(layout, work.record, asked["release"])
        work.refuse_newer_schema(wanted)
    if not wanted:
        raise records.SlotError("no release was asked for, and none runs")
    return str(wanted)


def foretold(asked: dict[str, Any], layout: records.Layout) -> dict[str, Any]:
    """Return what is there, and whether the real run would change it. Raises SlotError where that would refuse."""
    if asked["state"] == "failed":
        raise records.SlotError(asked["reason"])
    found = facts(layout)
    wanted = wanted_release(asked, layout, Change(layout, Engine(layout), limits(asked)))
    changed = asked["state"] == "restarted" or found["release"] != wanted or not found["settled"]
    return found | {"changed": changed}


def limits(asked: dict[str, Any]) -> Limits:
    """Return how long things may take, and how many releases stay."""
    return Limits(asked["ready_timeout"], asked["settle_seconds"], asked["drain_timeout"], max(asked["keep"], 3))


def mark_used(layout: records.Layout, release: str | None, again: bool = False) -> None:
    """Note when a release began to run; a killed run may not have come to that."""
    if release and (again or "used" not in records.read_release(layout, release)):
        records.write_release(layout, release, {"used": time.time()})


def change(asked: dict[str, Any], layout: records.Layout) -> dict[str, Any]:
    """Make the change alone, write what came of it into the log, and return it. Raises SlotError."""
    with alone():
        return changed_slots(asked, layout)


def changed_slots(asked: dict[str, Any], layout: records.Layout) -> dict[str, Any]:
    """Make the change, write what came of it into the log, and return it. Raises SlotError."""
    before = facts(layout)
    engine = Engine(layout)
    work = Change(layout, engine, limits(asked))
    # A second nginx would not be told of another slot.
    nginx = Replacement(nginx_engine.Engine(layout.project_dir))
    wanted, failure, changed = asked["release"] or before["release"], "", False
    started = time.monotonic()
    try:
        if asked["state"] == "failed":
            raise records.SlotError(asked["reason"])
        if asked["about"]:
            records.write_release(layout, wanted, asked["about"])
        for name in engine.let_proxy_read():
            work.steps.append({"step": f"let nginx read {name}", "seconds": 0.0, "ok": True})
        if engine.chosen_slot() is not None:
            nginx.settle()
            work.steps += nginx.steps
        work.settle()
        settled = bool(work.steps)
        mark_used(layout, work.record.release)
        wanted = wanted_release(asked, layout, work)
        changed = work.run(wanted, force=asked["state"] == "restarted") or settled
    except FAILURES as error:
        failure = explained(error)
    after = facts(layout)
    result = {"from": before["release"], "changed": changed, "steps": work.steps} | after
    result["settled"] = before["settled"]
    if changed or failure:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "who": asked["who"],
            "action": ACTIONS[asked["state"]],
            "from": before["release"],
            "to": wanted,
            "runs": after["release"],
            "seconds": round(time.monotonic() - started, 1),
            "result": "failed" if failure else "ok",
            "reason": failure,
            "steps": work.steps,
        }
        try:
            records.append_log(layout, entry)
        except OSError as error:
            # Not in the place of the reason, which is the same full disk as likely as not.
            failure = f"{failure or 'the change was made, and its line in the deploy log was not'}\n{explained(error)}"
    if failure:
        # Ansible prints all of it, so only what helps.
        return {"failed": True, "msg": failure, "changed": bool(work.steps), "steps": work.steps}
    mark_used(layout, wanted, again=changed)
    if changed:
        result["removed"] = work.prune()
        result["kept"] = records.kept(layout)
    return result


def main() -> None:
    """Do what is asked for."""
    module = AnsibleModule(
        argument_spec={
            "project_dir": {"type": "path", "required": True},
            "slots": {"type": "dict", "required": True},
            "publish": {"type": "list", "elements": "str", "default": []},
            "state": {
                "type": "str",
                "choices": ["looked", "present", "previous", "restarted", "failed"],
                "default": "present",
            },
            "release": {"type": "str", "default": ""},
            "image": {"type": "str", "default": ""},
            "about": {"type": "dict", "default": {}},
            "ready_timeout": {"type": "float", "default": 120},
            "settle_seconds": {"type": "float", "default": 2.5},
            "drain_timeout": {"type": "float", "default": 20},
            "keep": {"type": "int", "default": 5},
            "who": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if len(asked["slots"]) > 1 and asked["publish"]:
        module.fail_json(msg="two slots cannot publish the same ports: leave publish empty, or give one slot")
    layout = records.Layout(Path(asked["project_dir"]), asked["slots"], tuple(asked["publish"]))
    try:
        if asked["state"] == "looked":
            module.exit_json(changed=False, **looked(layout, asked["image"]))
        if module.check_mode:
            module.exit_json(**foretold(asked, layout))
    except FAILURES as error:
        module.fail_json(msg=explained(error))
    result = on_its_own(lambda: change(asked, layout))
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
