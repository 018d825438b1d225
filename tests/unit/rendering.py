"""Renders a role's templates the way Ansible does, with its defaults and without a host."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]

init_plugin_loader([str(ROOT / ".cache" / "collections")])

_compile = jinja2.Environment.compile
_compiled: dict[tuple[Any, ...], Any] = {}
_OPTIONS = ("block_start_string", "variable_start_string", "trim_blocks", "lstrip_blocks", "keep_trailing_newline")


def _compile_once(environment: jinja2.Environment, source: Any, *arguments: Any) -> Any:
    """Compile a template, or take what it was compiled to before: that is most of the work of rendering it."""
    if not isinstance(source, str):
        return _compile(environment, source, *arguments)
    key = (source, type(environment), *(getattr(environment, name) for name in _OPTIONS), *arguments)
    if key not in _compiled:
        _compiled[key] = _compile(environment, source, *arguments)
    return _compiled[key]


# Each Templar has an environment of its own, and no cache of another.
pytest.MonkeyPatch().setattr(jinja2.Environment, "compile", _compile_once)


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
