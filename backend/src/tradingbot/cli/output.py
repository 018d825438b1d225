"""What several commands print."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime


def print_once(as_json: bool, label: str, value: str, **more: object) -> None:
    """Prints a token that cannot be shown again: alone, or in a JSON object under `label` with `more`."""
    if as_json:
        print(json.dumps({**more, label: value}, default=_plain))
        return
    print(value)
    print("Keep it: it is stored as a hash and cannot be shown again.", file=sys.stderr)


def print_refusal(problems: Sequence[str]) -> int:
    """Prints what is wrong with the settings; gives the exit code."""
    print("tradingbot refuses to start:", file=sys.stderr)
    for problem in problems:
        print(f"  - {problem}", file=sys.stderr)
    return 2


def print_rows(as_json: bool, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table with a heading, or a JSON list of objects."""
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=_plain))
        return
    lines = [list(columns), *([_shown(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return ",".join(value) if isinstance(value, list) else str(value)
