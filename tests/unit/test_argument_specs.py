# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The variables of a role are the same, typed and documented, in defaults, specification and README."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TYPES = {"str", "int", "float", "bool", "list", "dict", "path", "raw"}


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("role_docs", ROOT / "tests" / "tools" / "role_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["role_docs"] = module
    spec.loader.exec_module(module)
    return module


role_docs = _tool()


def _defaults(role: str) -> dict[str, Any]:
    content: dict[str, Any] = role_docs.load(ROOT / "roles" / role / "defaults" / "main.yml")
    return content


def _options(role: str) -> dict[str, Any]:
    options: dict[str, Any] = role_docs.specification(ROOT / "roles" / role)["options"]
    return options


def test_the_roles_are_those_in_the_folder() -> None:
    folders = {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()}
    assert folders == set(role_docs.ROLES)


@pytest.mark.parametrize("role", role_docs.ROLES)
class TestRole:
    def test_defaults_and_specification_name_the_same_variables(self, role: str) -> None:
        """Only a required variable may go without a default."""
        required = {name for name, option in _options(role).items() if option.get("required")}
        assert set(_defaults(role)) - set(_options(role)) == set()
        assert set(_options(role)) - set(_defaults(role)) - required == set()

    def test_every_variable_carries_the_prefix(self, role: str) -> None:
        assert [name for name in _options(role) if not name.startswith(f"{role}_")] == []

    def test_every_option_is_typed_and_described(self, role: str) -> None:
        for name, option in _options(role).items():
            assert option.get("type") in TYPES, name
            assert all(len(s) > 10 for s in role_docs.sentences(option["description"])), name
            assert option["type"] != "list" or "elements" in option, name

    def test_defaults_are_equal_where_the_specification_gives_one(self, role: str) -> None:
        given = {name: option["default"] for name, option in _options(role).items() if "default" in option}
        assert given == {name: _defaults(role)[name] for name in given}

    def test_secrets_are_strings_without_a_default_value(self, role: str) -> None:
        secret = re.compile(r"(_password|_secret|_secret_key|_encryption_key|_private_key)$")
        for name, option in _options(role).items():
            if secret.search(name):
                assert option["type"] == "str", name
                assert not _defaults(role).get(name), name

    def test_every_default_has_a_comment_line_above_it(self, role: str) -> None:
        lines = (ROOT / "roles" / role / "defaults" / "main.yml").read_text().splitlines()
        bare = [
            line.split(":")[0]
            for before, line in itertools.pairwise(lines)
            if re.match(r"[a-z]\w*:", line) and not before.startswith("# ")
        ]
        assert bare == []

    def test_the_readme_is_current(self, role: str) -> None:
        text = (ROOT / "roles" / role / "README.md").read_text()
        assert text == role_docs.readme(ROOT / "roles" / role), "run `make docs`"


class TestGenerator:
    def _role(self, folder: Path, name: str) -> None:
        for part in ("meta", "defaults"):
            (folder / name / part).mkdir(parents=True)
        (folder / name / "defaults" / "main.yml").write_text(f"---\n# A | b.\n{name}_a: x|y\n")
        (folder / name / "meta" / "argument_specs.yml").write_text(
            "argument_specs:\n  main:\n    short_description: Makes C(a) true\n    options:\n"
            f"      {name}_a:\n        type: str\n        default: x|y\n        description: Left | right, C(ab).\n"
        )

    def test_writes_checks_and_is_idempotent(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name in role_docs.ROLES:
            self._role(tmp_path, name)
        assert role_docs.main(["--check", "--roles", str(tmp_path)]) == 1
        assert not (tmp_path / "nginx" / "README.md").exists()
        assert role_docs.main(["--roles", str(tmp_path)]) == 0
        text = (tmp_path / "nginx" / "README.md").read_text()
        assert "| `nginx_a` | str | `x\\|y` | Left \\| right, `ab`. |" in text
        capsys.readouterr()
        assert role_docs.main(["--roles", str(tmp_path)]) == 0
        assert capsys.readouterr().out == ""
        assert role_docs.main(["--check", "--roles", str(tmp_path)]) == 0

    def test_fails_when_a_role_has_no_specification(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            role_docs.main(["--check", "--roles", str(tmp_path)])
