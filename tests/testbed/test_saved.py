"""A saved host: what was on its file system and its disks, and its secrets, are there on a host that starts from it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed import hosts, saved

NAME, OTHER = "saved-test", "saved-test-other"
# What layers of images are made of: an attribute that only an administrator sees, a device, an owner, a mode.
WRITE = """
echo here > /etc/saved-test
mkdir -p /var/lib/docker/layer && cd /var/lib/docker/layer
python3 -c 'import os; os.setxattr(".", "trusted.overlay.opaque", b"y")'
mknod removed c 0 0
install -o 70 -g 70 -m 0400 /dev/null data
"""
READ = """
cat /etc/saved-test
cd /var/lib/docker/layer
python3 -c 'import os; print(os.getxattr(".", "trusted.overlay.opaque").decode())'
stat -c '%F %u %a' removed data
"""


def on(host: hosts.Host, script: str) -> str:
    """Return what a script prints that runs on the host as root."""
    command = [*hosts.ssh(host), "sudo", "sh", "-euc", shlex.quote(script)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def host() -> Iterator[hosts.Host]:
    """A bare host."""
    try:
        yield hosts.create(NAME)
    finally:
        for name in (NAME, OTHER):
            hosts.remove(name)
        saved.remove(NAME)


def test_a_host_starts_as_another_was_saved(host: hosts.Host, tmp_path: Path) -> None:
    on(host, WRITE)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("first")
    assert not saved.is_there(NAME)
    again = hosts.save(NAME, tmp_path / "secrets")
    assert on(again, "cat /etc/saved-test") == "here\n", "it goes on after it was saved"
    assert saved.is_there(NAME)

    other = hosts.create(OTHER, hosts.Start(saved=NAME, secrets=tmp_path / "restored"))
    assert on(other, READ).splitlines() == ["here", "y", "character special file 0 644", "regular empty file 70 400"]
    assert (tmp_path / "restored" / "key").read_text() == "first"
    on(other, "echo changed > /var/lib/docker/layer/new")
    assert on(again, "ls /var/lib/docker/layer").split() == ["data", "removed"], "they share nothing"

    saved.remove(NAME)
    assert not saved.is_there(NAME)
