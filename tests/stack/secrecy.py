"""Looks for secrets wherever they could have slipped to on a host, in several spellings."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from tests.stack.host import output_of, run_on
from tests.testbed import hosts

SEARCH = Path(__file__).with_name("secret_search.py").read_text()


def spellings(values: Iterable[str]) -> list[str]:
    """Return each value plain, URL-encoded, and what is in base64 for sure, wherever in a text it stands."""
    found = set()
    # The credentials in an address are secrets by themselves.
    for value in (part for whole in values for part in (whole, *re.findall(r"//(\w{32,})@", whole))):
        found |= {value, quote(value, safe=""), value.encode().hex()}
        for offset in range(3):
            encoded = base64.b64encode(b"x" * offset + value.encode()).decode().rstrip("=")
            # Without the characters at both ends that depend on the neighbours.
            found.add(encoded[4:-4])
    return sorted(found)


def search(machine: hosts.Host, values: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each kind of place on the host, the places where one of *values* is."""
    stdin = json.dumps({"values": spellings(values)})
    program = base64.b64encode(SEARCH.encode()).decode()
    command = f"echo {program} | base64 -d > /run/tradingbot-search.py && python3 /run/tradingbot-search.py"
    try:
        found: dict[str, list[str]] = json.loads(output_of(machine, command, stdin, seconds=300))
    finally:
        run_on(machine, "rm -f /run/tradingbot-search.py")
    return found
