"""Versions of the tiny LSTM, made by the script that ships with us."""

import json
from pathlib import Path
from typing import Any

from tools import make_tiny_lstm

NAME = "tiny-lstm"


def make_model(models_dir: Path, version: str, seed: int = 7) -> dict[str, Any]:
    """Writes a version of the model; gives the input and the output that numpy computed for it."""
    folder = models_dir / NAME / version
    make_tiny_lstm.write(folder, NAME, version, seed)
    expected = json.loads((folder / "expected.json").read_text())
    if not isinstance(expected, dict):
        raise TypeError("expected.json is not an object")
    return expected


def change_manifest(models_dir: Path, **changes: Any) -> None:
    """Changes members of the manifest of version 1."""
    path = models_dir / NAME / "1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
