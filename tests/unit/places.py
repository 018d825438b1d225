"""The places where variables arrive: templates and tasks of the roles and playbooks, rendered with an inventory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import small_host
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendering import ROOT, role_variables

ROLES = ("docker_host", "postgres", "redis", "backend", "nginx")
WIRING = ROOT / "inventories" / "prod" / "group_vars" / "all" / "00-wiring.yml"
PREFLIGHT: dict[str, Any] = {
    "os": {"id": "debian", "version": "13", "codename": "trixie"},
    "packages": {},
    "connection": {"address": "192.0.2.7", "port": 22},
    "missing_files": [],
    "unset_sysctls": {},
    "project": "",
    "python": {"apt": True, "debian": True},
    "docker": {"running": False, "enabled": True, "options": {}, "options_pending": False, "network": False},
    "firewall": {"installed": False, "confirmed": False, "enabled": False},
}
# What earlier tasks find on a host. A task that needs more than this cannot be rendered.
FOUND: dict[str, Any] = {
    "__docker_host_preflight": {"facts": PREFLIGHT, "problems": []},
    "__docker_host_written": {"paths": []},
    "__docker_host_teardown_data": True,
    "__docker_host_there": {"containers": [], "networks": [], "volumes": []},
    "__postgres_data_version": {},
    "__backend_now": {"image": None, "active": "blue", "settled": True, "memory_available_mb": 1, "disk_free_mb": 1},
    "__backend_definition": "services: {}",
    "__backend_plan_read": {"pending": [], "head": "0003"},
    "__backend_login": {"msg": "refused"},
    "__nginx_made": {"certificate": "made"},
    "__nginx_live": {},
}


@cache
def _load(path: str) -> Any:
    return DataLoader().load_from_file(path, trusted_as_template=True)


def inventory() -> dict[str, Any]:
    """Return the variables of an inventory with nothing but the wiring and secrets."""
    secrets: tuple[str, ...] = (
        "postgres_superuser_password",
        "postgres_owner_password",
        "postgres_password",
        "postgres_readonly_password",
        "redis_password",
    )
    secrets += ("redis_health_password", "backend_secret_key", "backend_webhook_secret", "backend_encryption_key")
    return dict(_load(str(WIRING))) | {f"vault_{name}": f"value-of-{name}" for name in secrets}


def _known(role: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Return what Ansible knows in a task of *role*; *variables* are those of the inventory's main.yml."""
    given = role_variables(role) if role else {}
    internal = {name: value for name, value in given.items() if name.startswith("__")}
    place = str(ROOT / "roles" / role)
    host = {
        "ansible_facts": small_host.FACTS | {"architecture": "x86_64"},
        "ansible_search_path": [place],
        "ansible_managed": "Ansible managed",
        "ansible_check_mode": False,
        "ansible_play_hosts_all": ["testhost"],
        "inventory_hostname": "testhost",
        "group_names": list(ROLES),
        "role_path": place,
    }
    # Last, for what a test says of a host as well.
    return given | inventory() | internal | host | FOUND | variables


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _tasks(tasks: list[dict[str, Any]], around: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each task of a file with the variables that it and the blocks around it set."""
    for task in tasks:
        known = around | (task.get("vars") or {})
        yield task, known
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks"):
            yield from _tasks(task.get(part) or [], known)


def _conditions(task: dict[str, Any]) -> list[str]:
    found = task.get("when", [])
    return [trust_as_template("{{ " + str(one) + " }}") for one in (found if isinstance(found, list) else [found])]


def task_text(role: str, file: str, name: str, variables: dict[str, Any]) -> str:
    """Return all that a task says to its module, a line for each value; what cannot be known here is left out."""
    path = ROOT / (f"roles/{role}/tasks/{file}" if role else file)
    found = [(task, known) for task, known in _tasks(_load(str(path)), {}) if task.get("name") == name]
    if len(found) != 1:
        raise LookupError(f"{len(found)} tasks of {path} are named {name!r}")
    task, local = found[0]
    templar = Templar(loader=DataLoader(), variables=_known(role, variables) | local)
    said = {key: item for key, item in task.items() if key not in ("name", "block", "rescue", "always", "when")}
    lines = []
    for leaf in (*_leaves(said), *_conditions(task)):
        try:
            lines.append(str(templar.template(leaf)))
        except AnsibleError:
            lines.append("?")
    return "\n".join(lines)


def template_text(role: str, file: str, variables: dict[str, Any]) -> str:
    """Return the text of a template."""
    path = ROOT / "roles" / role / "templates" / file
    templar = Templar(loader=DataLoader(), variables=_known(role, variables)).copy_with_new_env(
        searchpath=[str(ROOT / "roles" / role / "templates"), str(path.parent)]
    )
    overrides = {"trim_blocks": True, "keep_trailing_newline": True}
    return str(templar.template(trust_as_template(path.read_text()), overrides=overrides))


def text(place: str, variables: dict[str, Any]) -> str:
    """Return what *place* becomes, like `redis redis/compose.yaml.j2` or `redis run.yml: Ensure Redis is up`."""
    role, _, rest = place.partition(" ")
    file, _, name = rest.partition(": ")
    role = role if role in ROLES else ""
    return task_text(role, file, name, variables) if name else template_text(role, file, variables)
