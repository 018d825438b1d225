# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command `tradingbot` as the role docker_host puts it on a host."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from rendering import evaluate, render

ROOT = Path(__file__).resolve().parents[2]
PARTS = ROOT / "plugins" / "module_utils"
FILES = ROOT / "roles" / "docker_host" / "files"


def test_the_role_installs_all_parts_and_they_run_with_an_old_python() -> None:
    parts = evaluate("docker_host", "__docker_host_command_parts")
    there = {f"host_command/{path.name}" for path in (PARTS / "host_command").glob("*.py")}
    assert there == {part for part in parts if "/" in part}
    for part in parts:
        tree = ast.parse((PARTS / part).read_text(), feature_version=(3, 10))
        relative = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level == 2
            for alias in node.names
            if not node.module
        }
        assert {f"{name}.py" for name in relative} <= set(parts)
        absolute = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
        assert not [node.module for node in absolute if str(node.module).startswith("ansible")]


def test_as_installed_it_runs_alone(tmp_path: Path) -> None:
    files = evaluate(
        "docker_host",
        "__docker_host_command_files",
        role_path=str(ROOT / "roles/docker_host"),
        ansible_search_path=[str(ROOT / "roles/docker_host")],
    )
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    starter = (
        (FILES / "usr/local/bin/tradingbot").read_text().replace('"/usr/local/lib"', f'"{tmp_path}/usr/local/lib"')
    )
    done = subprocess.run([sys.executable, "-I", "-c", starter, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: tradingbot ")
    settings = json.loads(files["etc/tradingbot/command.json"])
    assert settings == {
        "project_dir": "/opt/tradingbot",
        "project": "tradingbot",
        "services": ["postgres", "redis", "backend", "nginx"],
        "firewall": True,
        "thresholds": {},
    }


def test_settings_carry_the_thresholds() -> None:
    text = render("docker_host", "etc/tradingbot/command.json.j2", docker_host_health_thresholds={"tls_days": 30})
    assert json.loads(text)["thresholds"] == {"tls_days": 30}
