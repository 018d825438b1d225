#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that looks whether a host's stack is well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_health
short_description: Looks whether a host's stack is well
version_added: "0.3.0"
description:
  - Looks at the containers of the stack, at which of the backend's slots gets requests, at the host's disks, memory and
    clock, at the way of a client's packets, the certificate, the database's schema, the queue of signals and the newest
    backup, all side by side, and returns what it found with all problems together, each with a way out.
  - Changes nothing, and does not fail on what it finds. Also a host without an engine gets an answer.
  - Needs root on the host, and nothing but Python, Docker, openssl, iproute2, iptables and nftables there.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  project_dir:
    description: Folder of the stack on the host.
    type: path
    default: /opt/tradingbot
  project:
    description: Name of the Compose project.
    type: str
    default: tradingbot
  services:
    description: Services that must run and be healthy. C(backend) stands for the slot that gets requests.
    type: list
    elements: str
    choices: [postgres, redis, backend, worker, nginx]
    default: [postgres, redis, backend, worker, nginx]
  certificate:
    description:
      - Certificate whose end is looked at; not given, C(nginx/tls/live/fullchain.pem) below O(project_dir).
      - Nothing is looked at when nginx listens without TLS.
    type: path
  backup_dir:
    description: Folder whose newest file is the last backup; not given, C(backups) below O(project_dir).
    type: path
  controller_time:
    description: The controller's clock in seconds since 1970 (UTC). Not given, the clocks are not compared.
    type: float
  timeout:
    description: Seconds that a question to a service may take.
    type: float
    default: 4
  firewall:
    description: Whether the host is meant to have the stack's own firewall, the nftables table C(inet tradingbot).
    type: bool
    default: true
    version_added: "0.4.0"
  thresholds:
    description: What is still well. What is not given has its default.
    type: dict
    default: {}
    suboptions:
      disk_free_percent:
        description: Space and inodes that must be free on each file system of the stack, in percent.
        type: int
        default: 10
      memory_available_percent:
        description: Memory of the host that programs must still be able to get, in percent.
        type: int
        default: 5
      memory_percent_of_limit:
        description: Share of its limit, in percent, that a service may not reach. File caches do not count.
        type: int
        default: 90
      tls_days:
        description: Days that the certificate must still be valid.
        type: int
        default: 14
      queue_depth:
        description: Signals that may wait.
        type: int
        default: 1000
      queue_oldest_seconds:
        description: Seconds that a signal may have waited.
        type: int
        default: 60
      backup_max_hours:
        description: Age that the newest backup may have, in hours. Having none is no problem.
        type: int
        default: 26
      clock_synchronised:
        description: Whether something must keep the host's clock in time (chrony, ntpd, systemd-timesyncd).
        type: bool
        default: true
      clock_offset_seconds:
        description: Seconds that the host's clock may differ from O(controller_time), the way to the host included.
        type: int
        default: 30
      from_outside:
        description:
          - Whether the web server must answer a client that is not on the host. The client has an address in
            192.0.2.0/24 (RFC 5737) and a network namespace of its own, for as long as the question takes.
          - Not asked when the web server is published on loopback only.
        type: bool
        default: true
        version_added: "0.4.0"
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: none
seealso:
  - module: tradingbot.stack.preflight
"""

EXAMPLES = r"""
- name: Look whether all is well
  tradingbot.stack.stack_health:
    services: [postgres, redis, backend, worker, nginx]
    thresholds:
      disk_free_percent: 20
  register: health

- name: Show it
  ansible.builtin.debug:
    msg: "{{ health.table }}"

- name: Refuse to call it healthy when it is not
  ansible.builtin.fail:
    msg: "{{ health.sentences | join('\n') }}"
  when: health.problems | length > 0
"""

RETURN = r"""
healthy:
  description: Whether there is no problem.
  returned: always
  type: bool
problems:
  description: All that is wrong; empty when nothing is.
  returned: always
  type: list
  elements: dict
  contains:
    what:
      description: The thing that is wrong.
      type: str
    why:
      description: What was found, and what it should be.
      type: str
    fix:
      description: A command to run or a variable to set.
      type: str
  sample:
    - what: redis
      why: it is exited, exit code 137, it was out of memory
      fix: "`tradingbot logs --tail 50 redis` on the host says why; `tradingbot up redis`"
sentences:
  description: RV(problems), each as one sentence.
  returned: always
  type: list
  elements: str
table:
  description: All that was found, as a text for people.
  returned: always
  type: str
services:
  description: The containers of the stack, in the order of their services.
  returned: always
  type: list
  elements: dict
  contains:
    service:
      description: Service of the Compose project; of the backend its slot, like C(backend-blue).
      type: str
    state:
      description: What Docker says, like C(running) or C(exited).
      type: str
    running:
      description: Whether it runs.
      type: bool
    health:
      description: What its health check says; empty without one.
      type: str
    healthy:
      description: Whether it runs and its health check says healthy.
      type: bool
    restarts:
      description: How often Docker has started it again since it was made.
      type: int
    version:
      description: Version in the label of an image of ours, tag of another.
      type: str
    image:
      description: Name of its image.
      type: str
    memory_mb:
      description: Memory in use in MiB, file caches left out; null when it does not run.
      type: int
    memory_limit_mb:
      description: Limit of it; null without one.
      type: int
    memory_percent:
      description: RV(services[].memory_mb) of RV(services[].memory_limit_mb) in percent.
      type: int
    container:
      description: Name of the container.
      type: str
    id:
      description: Identity of the container.
      type: str
    exit_code:
      description: With what it ended; null while it runs.
      type: int
    out_of_memory:
      description: Whether the kernel has killed it for its memory.
      type: bool
slots:
  description:
    - The backend's slots. C(active) gets requests, C(releases) tells what each slot runs, C(worker) what the worker
      runs, C(lock) who changes them just now.
  returned: always
  type: dict
host:
  description:
    - C(disks), C(memory) and C(clock) of the host; and in C(volumes) each file system that the containers have mounted,
      with its C(mounts), what is free, whether it is another one than those of C(disks) (C(own)), and the C(error) of
      a write, which is tried with a file that gets no name.
  returned: always
  type: dict
  sample:
    disks: [{path: /opt/tradingbot, free_mb: 20480, free_percent: 51.2, free_inodes_percent: 93.0}]
    volumes:
      - own: true
        free_mb: 512
        free_percent: 25.1
        free_inodes_percent: 99.0
        mounts:
          - what: volume tradingbot_postgres_data
            service: postgres
            path: /var/lib/postgresql/data
            source: /var/lib/docker/volumes/tradingbot_postgres_data/_data
            writable: true
        error: ""
    memory: {total_mb: 3915, available_mb: 2410, available_percent: 61.6}
    clock: {synchronised: true, offset_seconds: 0.4}
tls:
  description:
    - C(days) left of the certificate and when it C(ends); both null when it cannot be read, which C(error) explains.
    - Null when TLS is off or there is no web server.
  returned: always
  type: dict
schema:
  description:
    - C(current) revision of the database, C(head) of this version, C(oldest) head that can live with the database,
      and whether it is C(ok). Null when unknown.
  returned: always
  type: dict
queue:
  description: C(depth) is the number of signals that wait, C(oldest_seconds) how long the first has; null when unknown.
  returned: always
  type: dict
status:
  description: The whole answer of C(tradingbot status --json), and in C(error) why there is none.
  returned: always
  type: dict
backup:
  description: C(path) of the newest backup, and its age in C(hours); null when there is none.
  returned: always
  type: dict
database_error:
  description: Why PostgreSQL does not write, as a statement that is rolled back has found; empty when it does.
  returned: always
  type: str
web:
  description: What the backend's health answers through the web server's published port, C(status) 200 being well.
  returned: always
  type: dict
network:
  description:
    - What lies between clients and the containers. C(forwarding) has the kernel settings that are off, each with the
      files that say so; C(firewall) tells in what the loaded table differs from the confirmed rules; C(rules) names
      ports and networks that have lost Docker's rules, C(flushed_by) who may have flushed them, and C(problems) those
      of RV(problems) that come of it.
    - C(outside) is what the web server answers to a client from outside; C(status) is 0 when nothing answers. Null when
      nobody asked.
  returned: always
  type: dict
  version_added: "0.4.0"
  sample:
    forwarding: {net.ipv4.ip_forward: [/etc/sysctl.d/99-hardening.conf]}
    firewall: ""
    rules: [port 443 of nginx]
    flushed_by: [nftables.service]
    outside: {url: "https://203.0.113.7:443", source: 192.0.2.2, status: 0, milliseconds: 0, error: no connection}
    problems: []
proxy:
  description: What nginx runs; its C(configuration), the C(active) slot and whether there is C(maintenance).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import stack_health, stack_table


def main() -> None:
    kinds = {name: "bool" if isinstance(value, bool) else "int" for name, value in stack_health.THRESHOLDS.items()}
    thresholds = {
        name: {"type": kind, "default": stack_health.THRESHOLDS[name]} for name, kind in sorted(kinds.items())
    }
    services = list(stack_health.SERVICES)
    module = AnsibleModule(
        argument_spec={
            "project_dir": {"type": "path", "default": "/opt/tradingbot"},
            "project": {"type": "str", "default": "tradingbot"},
            "services": {"type": "list", "elements": "str", "choices": services, "default": services},
            "certificate": {"type": "path"},
            "backup_dir": {"type": "path"},
            "controller_time": {"type": "float"},
            "timeout": {"type": "float", "default": 4},
            "firewall": {"type": "bool", "default": True},
            "thresholds": {"type": "dict", "default": {}, "options": thresholds},
        },
        supports_check_mode=True,
    )
    given = {name: value for name, value in module.params.items() if value is not None}
    report = stack_health.look(stack_health.Settings(**given))
    sentences = stack_table.problem_lines(report["problems"])
    module.exit_json(changed=False, **report, sentences=sentences, table=stack_table.health_text(report))


if __name__ == "__main__":
    main()
