"""What several commands print."""

import json
import sys


def print_once(as_json: bool, label: str, value: str, **more: object) -> None:
    """Prints a token that cannot be shown again: alone, or in a JSON object under `label` with `more`."""
    if as_json:
        print(json.dumps({**more, label: value}))
        return
    print(value)
    print("Keep it: it is stored as a hash and cannot be shown again.", file=sys.stderr)
