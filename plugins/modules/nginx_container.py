#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that brings nginx's container to its Compose definition."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_container
short_description: Brings nginx's container to its Compose definition, without refusing a connection
version_added: "0.4.0"
description:
  - Where the container would be recreated, and serves, a second nginx is started from the new definition. Rules in a
    table of their own (C(ip tradingbot_nginx)) lead new connections of the published ports to it, until the recreated
    one is healthy. Each of the two finishes what it has in hand (SIGQUIT), and the backend tells the clients of
    WebSockets to come back (close code 1012).
  - A container that is missing, stopped or does not answer is made or started as Compose does it.
  - When the second nginx does not get healthy, the one that ran before serves on. When the recreated one does not, the
    second one serves on, until the next call.
  - The whole change is one call on the host, so that a connection that breaks, or a controller that dies, stops nothing
    half way. What a crash of this host interrupts is finished or rolled back by the next call.
  - Connections over IPv6, and with the engine's option C(userland-proxy) those over loopback, are refused while the
    container is recreated, about a second.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  project_dir:
    description: Folder of the Compose project.
    type: path
    required: true
  pull:
    description: When Compose pulls the image.
    type: str
    choices: [always, missing, never, policy]
    default: missing
  wait_timeout:
    description: Seconds until a container is healthy.
    type: int
    default: 60
  stop_timeout:
    description: Seconds that the second nginx may take to finish what it has in hand.
    type: float
    default: 120
attributes:
  check_mode:
    description: Can run in check mode and tell whether the container would change.
    support: full
  diff_mode:
    description: Shows what changes.
    support: none
"""

EXAMPLES = r"""
- name: Ensure nginx runs as its Compose file says
  tradingbot.stack.nginx_container:
    project_dir: /opt/tradingbot
"""

RETURN = r"""
steps:
  description: What was done, each with its seconds and whether it went well.
  type: list
  elements: dict
  returned: when not in check mode
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils.host_change import (
    ChangeError,
    alone,
    explained,
    on_its_own,
)
from ansible_collections.tradingbot.stack.plugins.module_utils.nginx_engine import Engine
from ansible_collections.tradingbot.stack.plugins.module_utils.nginx_replacement import Replacement


def change(engine: Engine) -> dict[str, Any]:
    """Make the change alone and return what was done."""
    work = Replacement(engine)
    try:
        with alone():
            changed = work.run()
    except ChangeError as error:
        return {"failed": True, "msg": explained(error), "changed": bool(work.steps), "steps": work.steps}
    return {"changed": changed, "steps": work.steps}


def main() -> None:
    """Do what is asked for."""
    module = AnsibleModule(
        argument_spec={
            "project_dir": {"type": "path", "required": True},
            "pull": {"type": "str", "choices": ["always", "missing", "never", "policy"], "default": "missing"},
            "wait_timeout": {"type": "int", "default": 60},
            "stop_timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    asked = module.params
    engine = Engine(Path(asked["project_dir"]), asked["pull"], asked["wait_timeout"], asked["stop_timeout"])
    if module.check_mode:
        try:
            module.exit_json(changed=bool(engine.planned()))
        except ChangeError as error:
            module.fail_json(msg=explained(error))
    result = on_its_own(lambda: change(engine))
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
