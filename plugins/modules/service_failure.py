#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that fails with why a service of the stack is not well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_failure
short_description: Fails with why a service of the stack is not well
version_added: "0.4.0"
description:
  - For the C(rescue) of a task that waits for a container, like M(community.docker.docker_compose_v2) with C(wait).
  - Always fails. The message holds what the Docker engine says of the container (state, exit code, restarts, memory,
    its health check), the end of its log, and the fix where the cause is known. Secrets of the stack are masked.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  service:
    description: Service of the Compose project.
    type: str
    required: true
  said:
    description: Message of the task that has failed.
    type: str
    default: ""
  project_dir:
    description: Folder of the Compose project, whose name is in its C(.env).
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
  - plugin: tradingbot.stack.failure
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Run Redis
  block:
    - name: Ensure Redis is up and healthy
      community.docker.docker_compose_v2:
        project_src: /opt/tradingbot
        services: [redis]
        wait: true
  rescue:
    - name: Say why Redis is not healthy
      tradingbot.stack.service_failure:
        service: redis
        said: "{{ lookup('tradingbot.stack.failure', ansible_failed_result) }}"
"""

RETURN = r"""
msg:
  description: Why the service is not well.
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import container_failure


def main() -> None:
    """Look at the container, and fail."""
    module = AnsibleModule(
        argument_spec={
            "service": {"type": "str", "required": True},
            "said": {"type": "str", "default": ""},
            "project_dir": {"type": "path", "default": "/opt/tradingbot"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    folder = Path(asked["project_dir"])
    module.fail_json(msg=container_failure.why(asked["service"], folder, asked["said"]))


if __name__ == "__main__":
    main()
