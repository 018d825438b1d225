"""The script that makes the tiny LSTM, run as users run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "tools" / "make_tiny_lstm.py"
NAME = "tiny-lstm"


def make_model(models_dir: Path, version: str, seed: int = 7) -> dict[str, Any]:
    """Writes a version of the model; gives the input and the output that numpy computed for it."""
    command = [sys.executable, str(SCRIPT), str(models_dir), "--version", version, "--seed", str(seed)]
    subprocess.run(command, check=True, capture_output=True)
    expected = json.loads((models_dir / NAME / version / "expected.json").read_text())
    if not isinstance(expected, dict):
        raise TypeError("expected.json is not an object")
    return expected


def change_manifest(models_dir: Path, **changes: Any) -> None:
    """Changes members of the manifest of version 1."""
    path = models_dir / NAME / "1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
