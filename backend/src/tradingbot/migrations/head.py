"""The newest revision, without importing Alembic: web workers ask for it."""

from functools import cache
from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"


@cache
def head_revision() -> str:
    """Gives the last of the revisions, which are numbered: `0001_<name>.py`, `0002_<name>.py`, …"""
    return max(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*_*.py"))
