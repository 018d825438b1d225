# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which commit an image is labelled with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.tradingbot.stack.plugins.filter.source_revision import FilterModule, source_revision

ENTRIES = ["Dockerfile", "src"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Tests", "-c", "user.email=tests@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "app" / "src").mkdir(parents=True)
    (tmp_path / "app" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "app" / "src" / "main.py").write_text("print(1)\n")
    (tmp_path / "notes.md").write_text("notes\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    return tmp_path


def test_is_the_commit_that_is_checked_out(checkout: Path) -> None:
    assert source_revision(str(checkout / "app"), ENTRIES) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("path", ["app/src/main.py", "app/src/new.py", "app/Dockerfile"])
def test_changed_sources_are_said_to_be(checkout: Path, path: str) -> None:
    (checkout / path).write_text("changed\n")
    assert source_revision(str(checkout / "app"), ENTRIES) == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_what_a_build_does_not_see_does_not_count(checkout: Path) -> None:
    (checkout / "notes.md").write_text("changed\n")
    (checkout / "app" / "scratch.txt").write_text("new\n")
    assert source_revision(str(checkout / "app"), ENTRIES) == git(checkout, "rev-parse", "HEAD")


def test_sources_that_only_lie_in_a_checkout_have_no_commit(checkout: Path) -> None:
    installed = checkout / "collections" / "app"
    installed.mkdir(parents=True)
    (installed / "Dockerfile").write_text("FROM scratch\n")
    assert source_revision(str(installed), ENTRIES) == ""


def test_no_checkout_no_git_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_revision(str(tmp_path), ENTRIES) == ""
    assert source_revision(str(tmp_path / "missing"), ENTRIES) == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_revision(str(tmp_path), ENTRIES) == ""


def test_is_a_filter() -> None:
    assert FilterModule().filters() == {"source_revision": source_revision}
