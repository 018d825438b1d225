# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""When a folder of sources counts as changed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter.tree_digest import tree_digest

ENTRIES = ["Dockerfile", "src"]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    root = tmp_path / "backend"
    (root / "src" / "app").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "src" / "app" / "main.py").write_text("print(1)\n")
    (root / "src" / "start.sh").write_text("#!/bin/sh\n")
    (root / "src" / "start.sh").chmod(0o755)
    (root / "README.md").write_text("read me\n")
    return root


def test_is_a_sha256(sources: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", tree_digest(str(sources), ENTRIES))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "src/app/main.py").write_text("print(2)\n"),
    "new file": lambda root: (root / "src/app/new.py").write_text(""),
    "file taken away": lambda root: (root / "src/app/main.py").unlink(),
    "name": lambda root: (root / "src/app/main.py").rename(root / "src/app/other.py"),
    "folder": lambda root: (root / "src/app").rename(root / "src/lib"),
    "no longer executable": lambda root: (root / "src/start.sh").chmod(0o644),
    "executable": lambda root: (root / "Dockerfile").chmod(0o755),
    "text moved to the next file": lambda root: (
        (root / "Dockerfile").write_text("FROM "),
        (root / "src/app/main.py").write_text("scratch\nprint(1)\n"),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_with_a_change_of(sources: Path, change: Callable[[Path], object]) -> None:
    before = tree_digest(str(sources), ENTRIES)
    change(sources)
    assert tree_digest(str(sources), ENTRIES) != before


def compile_sources(root: Path) -> None:
    (root / "src" / "__pycache__").mkdir()
    (root / "src" / "__pycache__" / "main.pyc").write_text("x")


STAYS: dict[str, Callable[[Path], object]] = {
    "times": lambda root: os.utime(root / "Dockerfile", (0, 0)),
    "permission to write": lambda root: (root / "Dockerfile").chmod(0o600),
    "files that do not count": lambda root: (root / "README.md").write_text("changed\n"),
    "an empty folder": lambda root: (root / "src/empty").mkdir(),
    "byte code": compile_sources,
}


@pytest.mark.parametrize("change", STAYS.values(), ids=STAYS)
def test_stays_with_other(sources: Path, change: Callable[[Path], object]) -> None:
    before = tree_digest(str(sources), ENTRIES)
    change(sources)
    assert tree_digest(str(sources), ENTRIES) == before


def test_does_not_depend_on_the_place(sources: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere" / "__pycache__" / "copy"
    shutil.copytree(sources, copied)
    assert tree_digest(str(copied), ENTRIES) == tree_digest(str(sources), ENTRIES)


def test_does_not_depend_on_how_entries_are_listed(sources: Path) -> None:
    assert tree_digest(str(sources), ["src", "Dockerfile", "src/app"]) == tree_digest(str(sources), ENTRIES)


@pytest.mark.parametrize("root", ["/", ""])
def test_takes_a_folder_however_it_is_written(sources: Path, root: str) -> None:
    assert tree_digest(f"{sources}{root}", ENTRIES) == tree_digest(str(sources), ENTRIES)


def test_refuses_an_entry_that_is_not_there(sources: Path) -> None:
    shutil.rmtree(sources / "src")
    with pytest.raises(AnsibleFilterError, match=r"src is missing: the folder .*backend is not complete"):
        tree_digest(str(sources), ENTRIES)
