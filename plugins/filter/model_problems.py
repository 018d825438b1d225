# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that judges models before they are put on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: model_problems
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.2.0
short_description: Preflight findings about models
description:
  - Finds models on the controller that are incomplete, of another name or version than said, or damaged, and names with
    several active versions.
options:
  _input:
    description: Models, each with C(name), C(version), C(src) (a folder on the controller) and maybe C(active).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse models that cannot be used
  ansible.builtin.fail:
    msg: "{{ backend_models | tradingbot.stack.model_problems | tradingbot.stack.problems }}"
  when: backend_models | tradingbot.stack.model_problems | length > 0
"""

RETURN = r"""
_value:
  description: Findings with C(what), C(why) and C(fix).
  type: list
  elements: dict
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILES = ("model.onnx", "manifest.json")
# Names and versions are folders on the host; the backend has the same rule.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Finding = dict[str, str]


def model_problems(models: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return what is wrong with *models*, as preflight findings."""
    found = []
    for model in models:
        title = f"{model['name']} {model['version']}"
        found += [{"what": "backend_models", "why": f"{title}: {why}", "fix": fix} for why, fix in _reasons(model)]
    active = [str(model["name"]) for model in models if model.get("active")]
    return found + [
        {
            "what": "backend_models",
            "why": f"{name} has {active.count(name)} active versions",
            "fix": "leave `active: true` to one of them",
        }
        for name in sorted({name for name in active if active.count(name) > 1})
    ]


def _reasons(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    folder = Path(str(model["src"]))
    unfit = [key for key in ("name", "version") if not _NAME.fullmatch(str(model[key]))]
    if unfit:
        fix = "use letters, digits, dots, underscores and hyphens, 64 at most"
        return [(f"the {' and the '.join(unfit)} cannot be a folder's name", fix)]
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        fix = f"name the folder with {' and '.join(FILES)} in `src`"
        return [(f"there is no {' and no '.join(missing)} in {folder} on the controller", fix)]
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        said = f"{manifest['name']} {manifest['version']}"
        digest = manifest["sha256"]
    except (ValueError, KeyError, TypeError):
        fix = "write it as the README of the backend says, under Models"
        return [(f"{folder}/manifest.json does not tell name, version and sha256", fix)]
    if said != f"{model['name']} {model['version']}":
        return [(f"{folder} holds {said}", "give name and version as the manifest does, or the right folder in `src`")]
    if digest != hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest():
        return [(f"{folder}/model.onnx is not the file that the manifest was written for", "take both from one export")]
    return []


class FilterModule:
    """Filters of tradingbot.stack for models."""

    def filters(self) -> dict[str, object]:
        return {"model_problems": model_problems}
