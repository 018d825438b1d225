#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that tells what would keep a host from carrying the stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Tells what would keep a host from carrying the stack
version_added: "0.1.0"
description:
  - Looks at a host before anything is changed on it and returns all problems together, each with a way out.
  - Changes nothing, fails on no finding, and needs neither Docker nor anything but Python on the host.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  distributions:
    description:
      - Distributions that may be used, each as C(ID VERSION_ID) or C(ID VERSION_CODENAME) of os-release.
    type: list
    elements: str
    required: true
  architectures:
    description: Machine names (as of C(uname -m)) that may be used.
    type: list
    elements: str
    required: true
  memory_min_mb:
    description: Memory that the host must have, in MiB.
    type: int
    default: 0
  disks:
    description: Space that must be free, for each path. A path that does not exist yet counts as the folder above it.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where the space is needed.
        type: path
        required: true
      min_mb:
        description: Free space that is needed, in MiB.
        type: int
        required: true
      variable:
        description: The variable that says so, named in the way out.
        type: str
        default: docker_host_disk_min_mb
  controller_time:
    description: The controller's clock in seconds since 1970 (UTC). Not given, the clock is not checked.
    type: float
  clock_offset_max:
    description: Seconds that the host's clock may differ from the controller's.
    type: int
    default: 30
  ports:
    description: TCP ports that must be free, or held by containers of O(project).
    type: list
    elements: int
    default: []
  names:
    description: Host names that must resolve.
    type: list
    elements: str
    default: []
  project:
    description: The Compose project whose own containers may hold O(ports).
    type: str
    default: tradingbot
  project_dir:
    description: Folder of the project, of which RV(facts) tells what the stack in it is called.
    type: path
    version_added: "0.4.0"
  thresholds:
    description: What the health check takes for well, where it is not the default; V(from_outside) is asked for here.
    type: dict
    default: {}
    version_added: "0.4.0"
  network:
    description: The Docker network that the host is going to have.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      subnet:
        description: Its IPv4 subnet, of 32 addresses or more. Nothing else on the host may route to it.
        type: str
        required: true
      bridge:
        description: Its network interface.
        type: str
        required: true
  firewall:
    description: The firewall that the host is going to have. Not given, nothing about it is checked.
    type: dict
    suboptions:
      ssh_sources:
        description: Addresses and networks that may reach SSH. The connection in use must be among them.
        type: list
        elements: str
        required: true
      ssh_port:
        description: The port that is going to be open for SSH; 0 stands for the one of the connection in use.
        type: int
        default: 0
      other_sources:
        description: Addresses and networks of the other rules, checked for their form only.
        type: list
        elements: str
        default: []
  packages:
    description: Debian packages whose installed versions are returned in RV(facts).
    type: list
    elements: str
    default: []
  files:
    description: Files of which RV(facts) tells which ones are missing.
    type: list
    elements: path
    default: []
  python_modules:
    description: Names of Python modules that tasks need, each by the package that brings it.
    type: dict
    default: {}
    version_added: "0.4.0"
  sysctls:
    description: Kernel settings of which RV(facts) tells which ones do not hold.
    type: dict
    default: {}
    version_added: "0.4.0"
  minimum_versions:
    description: Lowest versions of packages, by package name. Packages that are not installed are not checked.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
  diff_mode:
    description: There is nothing to differ.
    support: none
"""

EXAMPLES = r"""
- name: Look at the host
  tradingbot.stack.preflight:
    distributions: [debian 13]
    architectures: [x86_64]
    memory_min_mb: 2048
    disks:
      - {path: /var/lib/docker, min_mb: 10240}
    ports: [80, 443]
    firewall:
      ssh_sources: [192.0.2.0/24]
  register: host

- name: Refuse to go on
  ansible.builtin.fail:
    msg: "{{ host.problems | tradingbot.stack.problems }}"
  when: host.problems | length > 0
"""

RETURN = r"""
problems:
  description: What would keep the host from carrying the stack; empty when nothing does.
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
    - what: port 443
      why: nginx (pid 812) listens on it
      fix: "systemctl disable --now nginx.service"
facts:
  description: What was found out on the way.
  returned: always
  type: dict
  contains:
    os:
      description: ID, VERSION_ID and VERSION_CODENAME of os-release, as C(id), C(version) and C(codename).
      type: dict
    architecture:
      description: The machine name.
      type: str
    memory_mb:
      description: Memory in MiB.
      type: int
    connection:
      description: Peer's C(address) and host's C(port) of the SSH connection in use; empty without one.
      type: dict
    packages:
      description: Versions of those of O(packages) that are installed.
      type: dict
    missing_files:
      description: Those of O(files) that are not there.
      type: list
      elements: str
    python:
      description: Whether the interpreter has the modules C(apt) and C(debian), which apt's modules need.
      type: dict
    project:
      description: Name of the Compose project in O(project_dir); empty when there is none.
      type: str
    unset_sysctls:
      description:
        - Those of O(sysctls) that the kernel, or the file that a reboot reads, does not have with their values.
      type: dict
    docker:
      description:
        - C(running) tells whether an engine answers, C(enabled) whether its unit runs now and after a reboot,
          C(options) what daemon.json holds, C(options_pending) whether daemon.json was written after the engine last
          read it, C(network) whether it has the network of O(network).
      type: dict
    firewall:
      description:
        - C(installed) tells whether the host has a ruleset, C(confirmed) whether the one that was last
          rendered is the one that was confirmed, and is loaded, C(enabled) whether its unit runs now and after a
          reboot.
      type: dict
    network:
      description:
        - What keeps clients from the containers of O(project), each like one of RV(problems). Not among these, for the
          role mends it.
      type: list
"""

import importlib.util
import ipaddress
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import (
    stack_health,
    stack_network,
    stack_services,
    target,
)

Problem = dict[str, str]

DAEMON_JSON = Path("/etc/docker/daemon.json")
RULESET = Path("/etc/tradingbot/firewall.nft")
CONFIRMED_RULESET = Path("/etc/tradingbot/firewall.confirmed.nft")
# Where Debian's packages put Python modules.
DIST_PACKAGES = "/usr/lib/python3/dist-packages"
SYSCTL_FILE = Path("/etc/sysctl.d/90-tradingbot.conf")
NAME_TIMEOUT = 5.0
# The backend's slots have the fourth and fifth address from the end of the network (00-wiring.yml).
LONGEST_PREFIX = 27


def problem(what: str, why: str, fix: str) -> Problem:
    """Return a finding in the form that the filter tradingbot.stack.problems takes."""
    return {"what": what, "why": why, "fix": fix}


def check_privileges(uid: int) -> Iterator[Problem]:
    if uid != 0:
        yield problem(
            "privileges",
            f"the tasks run with uid {uid}, not as root",
            "set `become: true` (or ansible_become), and let the user run `sudo -n true`",
        )


def check_python(packages: dict[str, str], search: list[str], executable: str) -> Iterator[Problem]:
    """Yield modules that are missing and do not come by a package: those are for the distribution's Python alone."""
    missing = sorted(name for name in packages.values() if importlib.util.find_spec(name) is None)
    if missing and DIST_PACKAGES not in search:
        yield problem(
            "ansible_python_interpreter",
            f"{executable} has no {', '.join(missing)}, and does not see the packages that the roles install",
            f"set `ansible_python_interpreter: /usr/bin/python3`, or `{executable} -m pip install {' '.join(missing)}`",
        )


def check_system(facts: dict[str, Any], params: dict[str, Any]) -> Iterator[Problem]:
    release, supported = facts["os"], ", ".join(params["distributions"])
    names = {f"{release['id']} {release['version']}", f"{release['id']} {release['codename']}"}
    if not names & set(params["distributions"]):
        yield problem(
            "operating system",
            f"this is {' '.join(filter(None, release.values())) or 'unknown'}, supported are {supported}",
            "use a host with one of these, or add yours to docker_host_supported_distributions",
        )
    if facts["architecture"] not in params["architectures"]:
        yield problem(
            "architecture",
            f"this is {facts['architecture']}, supported are {', '.join(params['architectures'])}",
            "use a host with one of these, or add yours to docker_host_architectures if all images exist for it",
        )
    # A machine of n GiB shows a little less: the kernel and the firmware keep some.
    if facts["memory_mb"] < params["memory_min_mb"]:
        yield problem(
            "memory",
            f"the host has {facts['memory_mb']} MiB, {params['memory_min_mb']} MiB are needed",
            "give the host more memory, or lower docker_host_memory_min_mb",
        )


def check_cgroups(controllers: set[str]) -> Iterator[Problem]:
    missing = {"cpu", "memory", "pids"} - controllers
    if missing:
        yield problem(
            "cgroup controllers",
            f"the kernel has switched off {', '.join(sorted(missing))}: limits of containers would not hold",
            "add `cgroup_enable=memory` to the kernel's command line (GRUB_CMDLINE_LINUX), then update-grub and reboot",
        )


def check_disks(disks: list[dict[str, Any]]) -> Iterator[Problem]:
    for disk in disks:
        free = target.free_mb(disk["path"])
        if free < disk["min_mb"]:
            yield problem(
                f"disk space at {disk['path']}",
                f"{free} MiB are free, {disk['min_mb']} MiB are needed",
                f"make room (`df -h {target.existing_parent(disk['path'])}`), or lower {disk['variable']}",
            )


def check_clock(controller: float | None, now: float, most: int) -> Iterator[Problem]:
    if controller is not None and abs(now - controller) > most:
        yield problem(
            "clock",
            f"the host's clock is {now - controller:+.1f} s off the controller's, {most} s are allowed",
            "timedatectl set-ntp true (or mend chrony), or raise docker_host_clock_offset_max",
        )


def check_names(names: list[str]) -> Iterator[Problem]:
    known: dict[str, bool] = {}

    def ask(name: str) -> None:
        known[name] = target.resolves(name)

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + NAME_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for name in names:
        if not known.get(name, False):
            yield problem(
                f"name {name}",
                f"it does not resolve on the host within {NAME_TIMEOUT:.0f} s",
                f"getent hosts {name}, then mend /etc/resolv.conf or /etc/hosts",
            )


def _publishers(containers: list[dict[str, Any]], ports: set[int]) -> dict[int, dict[str, Any]]:
    return {
        published["PublicPort"]: container
        for container in containers
        for published in container.get("Ports") or []
        if published.get("Type") == "tcp" and published.get("PublicPort") in ports
    }


def check_ports(
    ports: set[int], project: str, containers: list[dict[str, Any]], root: Path = target.ROOT
) -> Iterator[Problem]:
    publishers = _publishers(containers, ports)
    for port, container in sorted(publishers.items()):
        if (container.get("Labels") or {}).get("com.docker.compose.project") != project:
            name = container["Names"][0].lstrip("/")
            yield problem(
                f"port {port}",
                f"the container {name} publishes it and does not belong to the project {project}",
                f"docker stop {name} (and keep it from starting: docker update --restart no {name})",
            )
    for listener in target.listeners(ports - set(publishers), root):
        who = f"{listener.command} (pid {listener.pid})" if listener.pid else "a process that cannot be seen from here"
        stop = (
            f"systemctl disable --now {listener.unit}"
            if listener.unit
            else f"ss -ltnp 'sport = :{listener.port}', then stop what it shows"
        )
        yield problem(f"port {listener.port}", f"{who} listens on it", stop)


def check_network(
    wanted: dict[str, Any], existing: dict[str, Any] | None, root: Path = target.ROOT
) -> Iterator[Problem]:
    try:
        subnet = ipaddress.IPv4Network(wanted["subnet"])
    except ValueError as error:
        yield problem("docker_host_network_subnet", f"it is no IPv4 network: {error}", "set one like 172.20.0.0/16")
        return
    if subnet.prefixlen > LONGEST_PREFIX:
        yield problem(
            "docker_host_network_subnet",
            f"{subnet} is so small that addresses that Docker gives may meet those of the backend's slots at its end",
            f"set one with a prefix of {LONGEST_PREFIX} or less, like 172.20.0.0/16",
        )
    ours = wanted["bridge"]
    if existing is not None:
        subnets = [entry.get("Subnet") for entry in (existing.get("IPAM") or {}).get("Config") or []]
        ours = (existing.get("Options") or {}).get("com.docker.network.bridge.name", f"br-{existing['Id'][:12]}")
        if str(subnet) not in subnets or ours != wanted["bridge"]:
            yield problem(
                f"network {wanted['name']}",
                f"it exists as {', '.join(filter(None, subnets))} on {ours}, wanted is {subnet} on {wanted['bridge']}",
                f"stop the containers in it, docker network rm {wanted['name']}; or set docker_host_network_subnet",
            )
    for interface, network in target.routes(root):
        if interface != ours and network.overlaps(subnet):
            yield problem(
                f"subnet {subnet}",
                f"the host reaches {network} by {interface}, which overlaps the network {wanted['name']}",
                f"ip route show {network}, then take it away or set docker_host_network_subnet to a free one",
            )


def _networks(sources: list[str]) -> tuple[list[Any], list[str]]:
    good, bad = [], []
    for source in sources:
        try:
            good.append(ipaddress.ip_network(source))
        except ValueError:
            bad.append(source)
    return good, bad


def check_firewall(firewall: dict[str, Any], connection: dict[str, Any]) -> Iterator[Problem]:
    networks, bad = _networks(firewall["ssh_sources"])
    bad += _networks(firewall["other_sources"])[1]
    for source in bad:
        yield problem(
            "firewall source",
            f"{source!r} is neither an address nor a network (a network has no host bits set)",
            "write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64 in docker_host_firewall_*",
        )
    address = connection.get("address")
    if not firewall["ssh_sources"]:
        yield problem(
            "docker_host_firewall_ssh_sources",
            "it is empty: the firewall would let nobody in by SSH",
            f"docker_host_firewall_ssh_sources: [{address or '<your address or network>'}]",
        )
    elif address and not any(ipaddress.ip_address(address) in network for network in networks):
        yield problem(
            "docker_host_firewall_ssh_sources",
            f"this connection comes from {address}, which is not in it: the firewall would lock you out",
            f"add {address} (or its network) to docker_host_firewall_ssh_sources",
        )
    port = connection.get("port")
    if port and firewall["ssh_port"] not in (0, port):
        yield problem(
            "docker_host_firewall_ssh_port",
            f"this connection uses port {port}, the firewall would open {firewall['ssh_port']}: it would lock you out",
            f"docker_host_firewall_ssh_port: {port}",
        )


def check_versions(packages: dict[str, str], minimum: dict[str, str]) -> Iterator[Problem]:
    for name, least in sorted(minimum.items()):
        if name in packages and target.version(packages[name]) < target.version(str(least)):
            yield problem(
                f"package {name}",
                f"{packages[name]} is installed, {least} or newer is needed",
                f"apt-get install --only-upgrade {name}; if nothing is newer: apt-get remove {name}, run again",
            )


def confinement_warnings(info: dict[str, Any] | None) -> Iterator[str]:
    """Yield what confines no container on this host, by the engine's description of itself; nothing without one."""
    if info is None:
        return
    options = [str(option).split(",") for option in info.get("SecurityOptions") or []]
    if ["name=apparmor"] not in options:
        yield (
            "AppArmor confines no container: the kernel does not have it, or the engine does not see it. "
            "Fix: apt-get install apparmor, boot with `apparmor=1 security=apparmor`, restart docker."
        )
    seccomp = [option for option in options if option[0] == "name=seccomp"]
    if not seccomp or "profile=unconfined" in seccomp[0]:
        yield (
            "seccomp confines no container: the engine is built without it, or told not to use it. "
            "Fix: take `seccomp-profile: unconfined` out of docker_host_daemon_options, or install another engine."
        )


def installed_packages(module: Any, names: list[str]) -> dict[str, str]:
    """Return the versions of those of *names* that dpkg has fully installed."""
    if not names or not module.get_bin_path("dpkg-query"):
        return {}
    form = "${Package} ${Version} ${db:Status-Status}\n"
    out = module.run_command(["dpkg-query", "--show", f"--showformat={form}", *names])[1]
    rows = (line.split() for line in out.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def daemon_options(path: Path = DAEMON_JSON) -> dict[str, Any]:
    """Return what daemon.json holds; empty when it is missing or no JSON object."""
    try:
        options = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def unset_sysctls(wanted: dict[str, Any], file: Path = SYSCTL_FILE, root: Path = target.ROOT) -> dict[str, Any]:
    """Return those of *wanted* that the kernel or *file* does not have."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {
        name: value
        for name, value in wanted.items()
        if target.sysctl(name, root) != str(value).split() or f"{name}={value}" not in lines
    }


def unit(module: Any, name: str) -> dict[str, str]:
    """Return what systemd knows of a unit; empty without systemd."""
    if not module.get_bin_path("systemctl"):
        return {}
    properties = "ActiveState,UnitFileState,NeedDaemonReload,StateChangeTimestampMonotonic"
    lines = module.run_command(["systemctl", "show", name, f"--property={properties}"])[1].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def enabled(properties: dict[str, str]) -> bool:
    """Return whether a unit runs as its file says, now and after a reboot."""
    wanted = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
    return wanted.items() <= properties.items()


def daemon_options_pending(docker: dict[str, str], path: Path = DAEMON_JSON) -> bool:
    """Return whether daemon.json is younger than the last start or reload of the engine's unit."""
    since = docker.get("StateChangeTimestampMonotonic", "")
    if not path.exists() or not since.isdigit():
        return False
    written = time.monotonic() - (time.time() - path.stat().st_mtime)
    return int(since) > 0 and written > int(since) / 1e6


def firewall_confirmed() -> bool:
    """Return whether the rendered ruleset is the confirmed one and, as far as can be seen, is loaded."""
    if not RULESET.exists() or not CONFIRMED_RULESET.exists():
        return False
    if RULESET.read_bytes() != CONFIRMED_RULESET.read_bytes():
        return False
    try:
        return not stack_network.firewall_difference()
    except stack_network.LookError:
        # The look at the network says so; a host that does not let itself be looked at would never come to rest.
        return True


def network_problems(params: dict[str, Any]) -> list[Problem]:
    """Return what keeps clients from the containers of the project; nothing when it has none."""
    found = stack_services.containers(params["project"])
    if not found:
        return []
    settings = stack_health.Settings(
        project_dir=params["project_dir"] or "/nowhere",
        project=params["project"],
        firewall=bool(params["firewall"]),
        thresholds=params["thresholds"],
    )
    return stack_network.problems(stack_health.network_state(found, settings), None)


def gather(module: Any) -> dict[str, Any]:
    """Return the facts of RETURN."""
    release = target.os_release()
    docker, network = unit(module, "docker.service"), module.params["network"]
    return {
        "os": {
            "id": release.get("ID", ""),
            "version": release.get("VERSION_ID", ""),
            "codename": release.get("VERSION_CODENAME", ""),
        },
        "architecture": platform.machine(),
        "memory_mb": target.memory_mb(),
        "connection": target.ssh_connection(),
        "packages": installed_packages(module, module.params["packages"]),
        "missing_files": [path for path in module.params["files"] if not os.path.exists(path)],
        "project": target.compose_project(Path(module.params["project_dir"] or "/nowhere")),
        "unset_sysctls": unset_sysctls(module.params["sysctls"]),
        "python": {name: importlib.util.find_spec(name) is not None for name in ("apt", "debian")},
        "docker": {
            "running": target.docker_get("/version") is not None,
            "enabled": enabled(docker),
            "options": daemon_options(),
            "options_pending": daemon_options_pending(docker),
            "network": bool(network) and target.docker_get(f"/networks/{network['name']}") is not None,
        },
        "firewall": {
            "installed": RULESET.exists() or CONFIRMED_RULESET.exists(),
            "confirmed": firewall_confirmed(),
            "enabled": enabled(unit(module, "tradingbot-firewall.service")),
        },
        "network": network_problems(module.params),
    }


def find_problems(params: dict[str, Any], facts: dict[str, Any]) -> Iterator[Problem]:
    """Yield everything that is wrong."""
    yield from check_clock(params["controller_time"], time.time(), params["clock_offset_max"])
    yield from check_privileges(os.geteuid())
    yield from check_python(params["python_modules"], sys.path, sys.executable)
    yield from check_system(facts, params)
    yield from check_cgroups(target.cgroup_controllers())
    yield from check_disks(params["disks"])
    yield from check_names(params["names"])
    if params["ports"]:
        containers = target.docker_get("/containers/json") or []
        yield from check_ports(set(params["ports"]), params["project"], containers)
    if params["network"]:
        existing = target.docker_get(f"/networks/{params['network']['name']}")
        yield from check_network(params["network"], existing)
    if params["firewall"]:
        yield from check_firewall(params["firewall"], facts["connection"])
    yield from check_versions(facts["packages"], params["minimum_versions"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "distributions": {"type": "list", "elements": "str", "required": True},
            "architectures": {"type": "list", "elements": "str", "required": True},
            "memory_min_mb": {"type": "int", "default": 0},
            "disks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "min_mb": {"type": "int", "required": True},
                    "variable": {"type": "str", "default": "docker_host_disk_min_mb"},
                },
            },
            "controller_time": {"type": "float"},
            "clock_offset_max": {"type": "int", "default": 30},
            "ports": {"type": "list", "elements": "int", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
            "project": {"type": "str", "default": "tradingbot"},
            "project_dir": {"type": "path"},
            "thresholds": {"type": "dict", "default": {}},
            "network": {
                "type": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "subnet": {"type": "str", "required": True},
                    "bridge": {"type": "str", "required": True},
                },
            },
            "firewall": {
                "type": "dict",
                "options": {
                    "ssh_sources": {"type": "list", "elements": "str", "required": True},
                    "ssh_port": {"type": "int", "default": 0},
                    "other_sources": {"type": "list", "elements": "str", "default": []},
                },
            },
            "packages": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "python_modules": {"type": "dict", "default": {}},
            "sysctls": {"type": "dict", "default": {}},
            "minimum_versions": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    facts = gather(module)
    for warning in confinement_warnings(target.docker_get("/info")):
        module.warn(warning)
    module.exit_json(changed=False, facts=facts, problems=list(find_problems(module.params, facts)))


if __name__ == "__main__":
    main()
