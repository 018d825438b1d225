# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The built collection holds what a user needs, and runs by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROLES = ("docker_host", "postgres", "redis", "backend", "nginx")
PLAYBOOKS = tuple(sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml")))


def run(folder: Path, program: str, *arguments: str, collections: Path | None = None) -> str:
    """Run *program* in *folder*, without this repository's settings; return all that it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"HOME": str(folder), "ANSIBLE_COLLECTIONS_PATH": str(collections or folder / "none")}
    command = [str(BIN / program), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    run(folder, "ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(folder))
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    return folder / f"tradingbot-stack-{version}.tar.gz"


@pytest.fixture(scope="module")
def files(tarball: Path) -> set[str]:
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the tarball into an empty path, without Galaxy; return that path."""
    path = tmp_path_factory.mktemp("installed")
    command = ["collection", "install", str(tarball), "--offline", "--no-deps", "--collections-path", str(path)]
    run(path, "ansible-galaxy", *command)
    return path


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "inventories" / "prod", tmp_path / "prod", ignore=shutil.ignore_patterns("vault.yml", ".*"))
    return tmp_path / "prod"


def test_holds_what_a_user_needs(files: set[str]) -> None:
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "requirements.yml", "meta/runtime.yml", "MANIFEST.json"}
    wanted |= {f"roles/{role}/{file}" for role in ROLES for file in ("tasks/main.yml", "README.md", "meta/main.yml")}
    wanted |= {f"roles/{role}/meta/argument_specs.yml" for role in ROLES}
    wanted |= {f"playbooks/{name}.yml" for name in PLAYBOOKS}
    wanted |= {"backend/Dockerfile", "backend/pyproject.toml", "inventories/prod/hosts.yml", "docs/security.md"}
    assert wanted - files == set()


def test_holds_all_of_roles_plugins_and_playbooks(files: set[str]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "roles", "plugins", "playbooks"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) - files == set()


def test_holds_nothing_else(files: set[str]) -> None:
    tops = {name.split("/")[0] for name in files}
    allowed = {"roles", "plugins", "playbooks", "meta", "docs", "backend", "inventories", "changelogs"}
    allowed |= {"MANIFEST.json", "FILES.json", "LICENSE", "README.md", "CHANGELOG.md", "requirements.yml"}
    assert tops - allowed == {"ansible.cfg", "site.yml"} & tops
    unwanted = re.compile(
        r"(^|/)(tests|molecule|demo|__pycache__|\.(?!dockerignore$|env\.j2$)[^/]*|vault\.yml|[^/]*\.(pem|key|pyc|vault-password))(/|$)"
    )
    assert sorted(name for name in files if unwanted.search(name)) == []


def test_holds_no_path_of_this_machine(tarball: Path) -> None:
    found = []
    with tarfile.open(tarball) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and str(ROOT).encode() in content.read():
                found.append(member.name)
    assert found == []


def test_installed_alone_runs_its_playbooks(installed: Path, inventory: Path) -> None:
    said = run(
        inventory.parent,
        "ansible-playbook",
        *(f"tradingbot.stack.{playbook}" for playbook in PLAYBOOKS),
        "-i",
        str(inventory),
        "--syntax-check",
        collections=installed,
    )
    shown = [line.removeprefix("playbook: ") for line in said.splitlines() if line.startswith("playbook: ")]
    assert [Path(path).stem for path in shown] == list(PLAYBOOKS)
    assert all(path.startswith(str(installed)) for path in shown)
    assert str(ROOT) not in said


def test_installed_alone_lists_the_roles_in_order(installed: Path, inventory: Path) -> None:
    said = run(
        inventory.parent,
        "ansible-playbook",
        "tradingbot.stack.site",
        "-i",
        str(inventory),
        "--list-tasks",
        collections=installed,
    )
    seen = [said.index(f"tradingbot.stack.{role} : ") for role in ROLES]
    assert seen == sorted(seen)


def test_installed_alone_documents_its_roles_and_plugins(installed: Path) -> None:
    roles = run(installed, "ansible-doc", "--list", "--type", "role", "tradingbot.stack", collections=installed)
    assert [role for role in ROLES if f"tradingbot.stack.{role}" not in roles] == []
    for kind, name in (("module", "vault_secrets"), ("filter", "secret_problems"), ("lookup", "with_vault")):
        assert "OPTIONS" in run(
            installed, "ansible-doc", "--type", kind, f"tradingbot.stack.{name}", collections=installed
        )


def test_installed_alone_makes_secrets(installed: Path, inventory: Path) -> None:
    password = inventory.parent / "password"
    password.write_text("correct horse battery staple\n")
    run(
        inventory.parent,
        "ansible-playbook",
        "tradingbot.stack.secrets",
        "-i",
        str(inventory),
        "--vault-password-file",
        str(password),
        collections=installed,
    )
    assert (inventory / "group_vars" / "all" / "vault.yml").read_text().startswith("$ANSIBLE_VAULT;")
