# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter that tells which commit a folder of sources is at."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_revision
author:
  - The tradingbot.stack maintainers (@tradingbot)
version_added: 0.3.0
short_description: Git commit of a folder of sources on the controller
description:
  - The commit that is checked out, with C(-dirty) when one of the wanted entries is not as committed.
  - Empty when the folder is not part of a checkout, as in an installed collection, or when there is no git.
positional: entries
options:
  _input:
    description: Folder on the controller.
    type: path
    required: true
  entries:
    description: Files and folders below it that count.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Label an image with the commit that it is made from
  ansible.builtin.debug:
    msg: "{{ 'app/' | tradingbot.stack.source_revision(['Dockerfile', 'src']) or 'no checkout' }}"
"""

RETURN = r"""
_value:
  description: 40 hexadecimal digits, maybe followed by C(-dirty), or nothing.
  type: str
"""

import os
import subprocess
from collections.abc import Sequence


def _git(folder: str, *arguments: str) -> str | None:
    """Return what git says, None when it fails or is not there."""
    # Variables of an outer git, as in a hook, would send this one to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], check=False, capture_output=True, text=True, env=environment
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def source_revision(root: str, entries: Sequence[str]) -> str:
    """Return the commit of the checkout that the *entries* below *root* are part of, '' when they are not."""
    # A folder that merely lies in a checkout of something else is not part of it.
    if not _git(root, "ls-files", "--", *entries):
        return ""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *entries)
    return f"{commit}-dirty" if commit and changed else commit or ""


class FilterModule:
    """Filter of tradingbot.stack for builds."""

    def filters(self) -> dict[str, object]:
        return {"source_revision": source_revision}
