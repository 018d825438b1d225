#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that tells whether a service of the stack needs `docker compose up`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_info
short_description: Tells whether a service's container is up, healthy and as its definition says
version_added: "0.4.0"
description:
  - Compares a service's container with what C(docker compose up) would make of it, and changes nothing.
  - With it a play asks Compose, which takes seconds, only when they differ.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  service:
    description: Service of the Compose project.
    type: str
    required: true
  project_dir:
    description: Folder of the Compose project.
    type: path
    default: /opt/tradingbot
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: none
seealso:
  - module: community.docker.docker_compose_v2
"""

EXAMPLES = r"""
- name: Compare Redis's container with its definition
  tradingbot.stack.service_info:
    service: redis
  register: redis_now

- name: Ensure Redis is up and healthy
  community.docker.docker_compose_v2:
    project_src: /opt/tradingbot
    services: [redis]
    wait: true
  when: not redis_now.up_to_date
"""

RETURN = r"""
up_to_date:
  description:
    - Whether the service has one container, which runs and is healthy, was made of the definition and the image that
      are there now, and is connected to the networks that are there now.
    - V(false) also when that cannot be seen.
  returned: always
  type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_services


def main() -> None:
    """Look at the service."""
    module = AnsibleModule(
        argument_spec={
            "service": {"type": "str", "required": True},
            "project_dir": {"type": "path", "default": "/opt/tradingbot"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    found = stack_services.is_up_to_date(asked["service"], Path(asked["project_dir"]))
    module.exit_json(changed=False, up_to_date=found)


if __name__ == "__main__":
    main()
