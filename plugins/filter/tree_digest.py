# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that tells whether a folder of sources has changed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: tree_digest
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.1.0
short_description: Digest of the files of a folder on the controller
description:
  - SHA-256 over the relative paths, the executable bits and the contents of the wanted entries of a folder.
  - Equal trees give equal digests, wherever they lie and whenever they were written.
  - C(__pycache__) folders do not count.
positional: entries
options:
  _input:
    description: Folder on the controller.
    type: path
    required: true
  entries:
    description: Files and folders below it that count. Each must be there.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Name an image after its sources
  ansible.builtin.debug:
    msg: "app:{{ ('app/' | tradingbot.stack.tree_digest(['Dockerfile', 'src']))[:12] }}"
"""

RETURN = r"""
_value:
  description: 64 hexadecimal digits.
  type: str
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ansible.errors import AnsibleFilterError


def _files(root: Path, entries: Sequence[str]) -> Iterator[Path]:
    for entry in entries:
        start = root / entry
        if start.is_file():
            yield start
        elif start.is_dir():
            yield from (p for p in start.rglob("*") if p.is_file() and "__pycache__" not in p.relative_to(root).parts)
        else:
            raise AnsibleFilterError(f"{start} is missing: the folder {root} is not complete")


def tree_digest(root: str, entries: Sequence[str]) -> str:
    """Return the SHA-256 of the files below *root* that *entries* name.

    Raises AnsibleFilterError when an entry is missing.
    """
    base = Path(root)
    digest = hashlib.sha256()
    for file in sorted(set(_files(base, entries))):
        content = file.read_bytes()
        mode = "x" if os.access(file, os.X_OK) else "-"
        digest.update(f"{file.relative_to(base).as_posix()}\0{mode}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


class FilterModule:
    """Filters of tradingbot.stack for build contexts."""

    def filters(self) -> dict[str, object]:
        return {"tree_digest": tree_digest}
