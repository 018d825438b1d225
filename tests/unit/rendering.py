"""Render a role's templates with Ansible's own templating, without a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]

# What roles ask of a host: two cores and 4 GB, as the specification's smallest server.
FACTS: dict[str, Any] = {
    "memtotal_mb": 3915,
    "processor_vcpus": 2,
    "architecture": "x86_64",
    "distribution": "Debian",
    "distribution_release": "trixie",
    "os_family": "Debian",
    "service_mgr": "systemd",
}


def _trusted(value: Any) -> Any:
    """Return *value* with every text in it marked as a template, as if Ansible had read it from a file."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: _trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return value


def role_variables(role: str, **extra: Any) -> dict[str, Any]:
    """Return defaults and internal variables of *role*, with facts of a host, *extra* before all."""
    variables: dict[str, Any] = {
        "ansible_facts": FACTS,
        "inventory_hostname": "testhost",
        "ansible_managed": "Ansible managed",
        "ansible_check_mode": False,
    }
    for name in ("defaults", "vars"):
        file = ROOT / "roles" / role / name / "main.yml"
        if file.exists():
            variables |= _trusted(yaml.safe_load(file.read_text()) or {})
    return variables | extra


def templar(role: str, **extra: Any) -> Templar:
    """Return Ansible's templating engine with the variables of *role*."""
    init_plugin_loader()
    loader = DataLoader()
    templates = ROOT / "roles" / role / "templates"
    loader.set_basedir(str(templates))
    return Templar(loader=loader, variables=role_variables(role, **extra) | {"ansible_search_path": [str(templates.parent)]})


def evaluate(role: str, expression: str, **extra: Any) -> Any:
    """Return what the template text *expression* gives with the variables of *role*."""
    return templar(role, **extra).template(trust_as_template(expression))


def render(role: str, template: str, **extra: Any) -> str:
    """Return the text that *template*, a path below the role's templates/, gives on a host."""
    lookup = "{{ lookup('ansible.builtin.template', __template) }}"
    return str(evaluate(role, lookup, __template=template, **extra))


def problems(role: str, **extra: Any) -> list[dict[str, Any]]:
    """Return the findings of the last task of the role's preflight, given what its other tasks registered."""
    tasks = yaml.safe_load((ROOT / "roles" / role / "tasks" / "preflight.yml").read_text())
    last = tasks[-1]
    variables = _trusted(last.get("vars", {})) | extra
    found = evaluate(role, last["ansible.builtin.set_fact"][f"__{role}_problems"], **variables)
    assert isinstance(found, list)
    return found
