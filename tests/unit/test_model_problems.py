# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Models that cannot be used are found on the controller, before they are on a host."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingbot.stack.plugins.filter.model_problems import FilterModule, model_problems


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """A model that nothing is wrong with."""
    content = b"weights"
    (tmp_path / "model.onnx").write_bytes(content)
    manifest = {"name": "lstm", "version": "1.2", "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return {"name": "lstm", "version": "1.2", "src": str(tmp_path), "active": True}


def reasons(*models: dict[str, Any]) -> list[str]:
    found = model_problems(models)
    assert all(set(finding) == {"what", "why", "fix"} and finding["what"] == "backend_models" for finding in found)
    return [finding["why"] for finding in found]


def test_a_good_model_has_no_problem(model: dict[str, Any]) -> None:
    assert reasons(model) == []
    assert FilterModule().filters()["model_problems"] is model_problems


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"src": "/nowhere"}, "there is no model.onnx and no manifest.json in /nowhere on the controller"),
        ({"name": "../../secrets"}, "the name cannot be a folder's name"),
        ({"name": "", "version": ".."}, "the name and the version cannot be a folder's name"),
        ({"version": "1.3"}, "holds lstm 1.2"),
    ],
)
def test_what_does_not_fit_is_named(model: dict[str, Any], change: dict[str, str], reason: str) -> None:
    (found,) = reasons(model | change)
    assert found.endswith(reason)


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "lstm"}', "7"])
def test_a_manifest_that_says_nothing_is_found(model: dict[str, Any], tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    (found,) = reasons(model)
    assert found.endswith("manifest.json does not tell name, version and sha256")


def test_a_damaged_model_is_found(model: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"other weights")
    (found,) = reasons(model)
    assert found.endswith("model.onnx is not the file that the manifest was written for")


def test_one_version_of_a_name_is_active(model: dict[str, Any]) -> None:
    assert reasons(model, model | {"active": False}) == []
    assert reasons(model, model) == ["lstm has 2 active versions"]
