"""Renders a role's templates the way Ansible does, with its defaults and without a host."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]

init_plugin_loader([str(ROOT / ".cache" / "collections")])


@cache
def _role_variables(role: str) -> dict[str, Any]:
    loader = DataLoader()
    found: dict[str, Any] = {}
    for folder in ("defaults", "vars"):
        path = ROOT / "roles" / role / folder / "main.yml"
        if path.exists():
            found |= loader.load_from_file(str(path), trusted_as_template=True) or {}
    return found


def role_variables(role: str) -> dict[str, Any]:
    """Return the role's defaults and internal variables, not yet templated."""
    return dict(_role_variables(role))


def evaluate(role: str, expression: str, **variables: Any) -> Any:
    """Return what *expression* comes to with the role's defaults and *variables* over them."""
    known = {"ansible_managed": "Ansible managed", "ansible_check_mode": False} | role_variables(role) | variables
    return Templar(loader=DataLoader(), variables=known).template(trust_as_template("{{ " + expression + " }}"))


def render(role: str, template: str, **variables: Any) -> str:
    """Return the text of the role's *template* (a path below its templates/) with *variables*."""
    path = ROOT / "roles" / role / "templates" / template
    known = {"ansible_managed": "Ansible managed", "ansible_check_mode": False} | role_variables(role) | variables
    search = [str(ROOT / "roles" / role / "templates"), str(path.parent)]
    templar = Templar(loader=DataLoader(), variables=known).copy_with_new_env(searchpath=search)
    overrides = {"trim_blocks": True, "keep_trailing_newline": True}
    return str(templar.template(trust_as_template(path.read_text()), overrides=overrides))
