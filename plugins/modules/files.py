#!/usr/bin/python
# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Ansible module that puts several folders and files in their place at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Puts several folders and files in their place at once
version_added: "0.1.0"
description:
  - Makes folders, then files with the given contents, each with its owner and mode.
  - Does what C(ansible.builtin.file) and C(ansible.builtin.copy) with C(content) do, in one call for all of them.
    Each call of those costs about a third of a second, and a file takes two.
  - A file that changes gets a new inode, so that nobody reads half of it.
author:
  - The tradingbot.stack maintainers (@tradingbot)
options:
  base:
    description: Folder that all paths are below. A path that leads out of it is refused.
    type: path
    required: true
  files_in:
    description: Folder below O(base) that the O(files) are in.
    type: str
    default: .
    version_added: "0.4.0"
  owner:
    description: Owner of all that names none itself.
    type: str
    default: root
  group:
    description: Group of all that names none itself.
    type: str
    default: root
  mode:
    description: Mode of the files.
    type: str
    default: "0644"
  modes:
    description: Modes of files that differ from O(mode), by their names in O(files).
    type: dict
    default: {}
    version_added: "0.4.0"
  force:
    description: Whether files that exist get the given contents. With V(false) they only get their owner and mode.
    type: bool
    default: true
    version_added: "0.4.0"
  validate:
    description:
      - Commands that must accept the new contents of a file before it is replaced, by its name in O(files).
      - C(%s) stands for the path of a temporary file. A file that does not change is not validated.
    type: dict
    default: {}
    version_added: "0.4.0"
  folders:
    description: Folders to make. Folders above them that are missing are made alike.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path below O(base); C(.) is O(base) itself.
        type: str
        required: true
      mode:
        description: Mode of the folder.
        type: str
        default: "0755"
      owner:
        description: Owner of the folder.
        type: str
      group:
        description: Group of the folder.
        type: str
  files:
    description:
      - Contents of files, by path below O(files_in). Folders above them that are missing are made, with mode 0755.
      - With secrets in them the task needs C(no_log=true) and C(diff=false).
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode and tell what would change.
    support: full
  diff_mode:
    description: Shows what changes in the files.
    support: full
"""

EXAMPLES = r"""
- name: Ensure the service is configured
  tradingbot.stack.files:
    base: /opt/tradingbot
    folders:
      - {path: secrets, mode: "0700"}
      - {path: redis/conf}
    files:
      redis/conf/redis.conf: "{{ lookup('ansible.builtin.template', 'redis/conf/redis.conf.j2') }}"
      redis/compose.yaml: "{{ lookup('ansible.builtin.template', 'redis/compose.yaml.j2') }}"

- name: Ensure the web server's configuration is one that it accepts
  tradingbot.stack.files:
    base: /etc/nginx
    files:
      nginx.conf: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
    validate:
      nginx.conf: nginx -t -q -c %s

- name: Ensure the service can read its secrets
  tradingbot.stack.files:
    base: /opt/tradingbot/secrets
    owner: "999"
    group: "1000"
    mode: "0400"
    files:
      redis_password: "{{ vault_redis_password }}"
  no_log: true
  diff: false
"""

RETURN = r"""
paths:
  description: The folders and files that changed.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingbot.stack.plugins.module_utils import failures


def ensure_attributes(module: AnsibleModule, path: Path, wanted: dict[str, Any], changed: bool) -> bool:
    """Give *path* its owner, group and mode; tell whether that, or what was before, is a change."""
    names = ("owner", "group", "mode")
    attributes = {name: wanted.get(name) or module.params[name] for name in names}
    found = module.load_file_common_arguments(attributes, path=str(path))
    return bool(module.set_fs_attributes_if_different(found, changed))


def below(module: AnsibleModule, name: str) -> Path:
    """Return the path of *name*; fail when it leads out of the base."""
    base = Path(os.path.normpath(module.params["base"]))
    path = Path(os.path.normpath(base / name))
    if not path.is_relative_to(base):
        module.fail_json(msg=f"{name} leads out of {base}: name a path below it, or another base")
    return path


def ensure_folder(module: AnsibleModule, wanted: dict[str, Any]) -> list[str]:
    """Make a folder and what is missing above it; return the paths that changed."""
    path = below(module, wanted["path"])
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        module.fail_json(msg=f"{nearest} is there and is no folder")
    missing = [folder for folder in reversed([path, *path.parents]) if not folder.exists()]
    for folder in missing:
        if not module.check_mode:
            folder.mkdir()
            ensure_attributes(module, folder, wanted, True)
    if missing:
        return [str(folder) for folder in missing]
    return [str(path)] if ensure_attributes(module, path, wanted, False) else []


def validate(module: AnsibleModule, path: Path, command: str, temporary: str) -> None:
    """Fail unless *command* accepts the new contents of *path*."""
    code, out, error = module.run_command(command.replace("%s", temporary))
    if code != 0:
        said = failures.described((error or out).replace(temporary, str(path)).strip())
        module.fail_json(msg=f"{path} stays as it is, because its new contents are not valid: {said}")


def ensure_file(module: AnsibleModule, name: str, content: str) -> tuple[list[str], dict[str, str] | None]:
    """Write a file that differs; return the paths that changed, and the difference in its content."""
    place = os.path.join(module.params["files_in"], name)
    path = below(module, place)
    attributes = {"mode": module.params["modes"].get(name)}
    made = [] if path.parent.is_dir() else ensure_folder(module, {"path": os.path.dirname(place), "mode": "0755"})
    if path.is_dir():
        module.fail_json(msg=f"{path} is a folder and should be a file")
    new = content.encode()
    old = path.read_bytes() if path.exists() else b""
    differs = not path.exists() or (module.params["force"] and new != old)
    if differs and not module.check_mode:
        with failures.naming(path):
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            module.add_cleanup_file(temporary)
            with os.fdopen(descriptor, "wb") as file:
                file.write(new)
        if name in module.params["validate"]:
            validate(module, path, module.params["validate"][name], temporary)
        # Nobody else can read the new file before it has its owner and mode.
        ensure_attributes(module, Path(temporary), attributes, True)
        os.replace(temporary, path)
    changed = ensure_attributes(module, path, attributes, differs)
    difference = {
        "before": old.decode(errors="replace"),
        "after": content,
        "before_header": str(path),
        "after_header": str(path),
    }
    return made + ([str(path)] if changed else []), difference if differs else None


def ensure_all(module: AnsibleModule) -> tuple[list[str], list[dict[str, str]]]:
    """Make the folders, then the files; return the paths that changed, and how the files differ."""
    paths = [path for wanted in module.params["folders"] for path in ensure_folder(module, wanted)]
    differences = []
    for name, content in module.params["files"].items():
        changed, difference = ensure_file(module, name, str(content))
        paths += changed
        if difference and module._diff:
            differences.append(difference)
    return paths, differences


def main() -> None:
    """Read the arguments, make the folders, then the files."""
    folder = {
        "path": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0755"},
        "owner": {"type": "str"},
        "group": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "path", "required": True},
            "files_in": {"type": "str", "default": "."},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "modes": {"type": "dict", "default": {}},
            "force": {"type": "bool", "default": True},
            "validate": {"type": "dict", "default": {}},
            "folders": {"type": "list", "elements": "dict", "default": [], "options": folder},
            "files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
        # The contents are too much for the host's journal, and may be secret.
        no_log=True,
    )
    # Before the first change: a refusal must not leave half of them done.
    files = [os.path.join(module.params["files_in"], name) for name in module.params["files"]]
    for name in [wanted["path"] for wanted in module.params["folders"]] + files:
        below(module, name)
    try:
        paths, differences = ensure_all(module)
    except OSError as error:
        module.fail_json(msg=failures.os_error_text(error))
    module.exit_json(changed=bool(paths), paths=paths, diff=differences)


if __name__ == "__main__":
    main()
