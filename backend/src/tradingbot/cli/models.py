"""`tradingbot model`: lists, verifies and activates models in MODELS_DIR."""

import argparse
import os
import sys
from pathlib import Path

from tradingbot.inference.manifest import ModelError, read_manifest
from tradingbot.inference.onnx_model import load_model
from tradingbot.inference.registry import activate, read_active


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions of `model`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show all models; exit code 1 if one cannot be used")
    listing.set_defaults(run=_run, act=_list)
    for name, act, text in (
        ("verify", _verify, "load a version and let it answer once"),
        ("activate", _activate, "make a version the active one, after verifying it"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("name", help="the model's folder in MODELS_DIR")
        action.add_argument("version", help="the folder in that")
        action.set_defaults(run=_run, act=act)


def _run(arguments: argparse.Namespace) -> int:
    folder = Path(os.environ.get("MODELS_DIR") or "models")
    try:
        return int(arguments.act(folder, arguments))
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1


def _list(folder: Path, _arguments: argparse.Namespace) -> int:
    rows = [("MODEL", "VERSION", "ACTIVE", "SHA-256", "WINDOW", "FEATURES")]
    broken = 0
    for path in sorted(folder.glob("*/*/manifest.json")):
        name, version = path.parent.parent.name, path.parent.name
        try:
            manifest = read_manifest(path.parent)
        except ModelError as error:
            rows.append((name, version, "", f"unusable: {error}", "", ""))
            broken += 1
            continue
        features = ",".join(feature.name for feature in manifest.features)
        active = "yes" if _active(folder, name) == version else ""
        rows.append((name, version, active, manifest.sha256[:12], str(manifest.window), features))
    if len(rows) == 1:
        print(f"no models in {folder}")
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 1 if broken else 0


def _active(folder: Path, name: str) -> str | None:
    try:
        return read_active(folder, name)
    except ModelError:
        return None


def _verify(folder: Path, arguments: argparse.Namespace) -> int:
    model = load_model(folder / arguments.name / arguments.version)
    print(f"{model.manifest.name} {model.manifest.version} loads and answers: {model.manifest.sha256}")
    return 0


def _activate(folder: Path, arguments: argparse.Namespace) -> int:
    activate(folder, arguments.name, arguments.version)
    print(f"{arguments.name} {arguments.version} is active; a running worker takes it with the next signal")
    return 0
