"""What the revisions say of themselves, without importing Alembic: web workers ask for the newest one.

A revision module may say, at its top:

- `contract = "0003"`: only code whose head is 0003 or later can live with the schema after it. Without it the
  revision is an expanding one, which all earlier code lives with.
- `lint_exceptions = {"rule": "why"}`: rules of squawk that do not count for it.

docs/migrations.md says when to use them.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

VERSIONS = Path(__file__).parent / "versions"
# Code whose head is this can live with a schema that no contracting revision has changed.
FIRST = "0001"

_NUMBER = re.compile(r"\d{4}")


class Revision(NamedTuple):
    """A step of the schema, as its module describes it."""

    number: str
    name: str
    contract: str | None
    lint_exceptions: dict[str, str]


@cache
def head_revision() -> str:
    """Gives the last of the revisions, which are numbered: `0001_<name>.py`, `0002_<name>.py`, …"""
    return max(path.name.partition("_")[0] for path in _files())


def revisions() -> list[Revision]:
    """Gives all revisions, the first one first.

    Raises:
        ValueError: a module says something of itself that cannot be.
    """
    return [_read(path) for path in sorted(_files())]


def oldest_for(number: str) -> str:
    """Gives the oldest head that can live with the schema at a revision."""
    contracts = [one.contract for one in revisions() if one.contract and one.number <= number]
    return max(contracts, default=FIRST)


def _files() -> list[Path]:
    return list(VERSIONS.glob("[0-9]*_*.py"))


def _read(path: Path) -> Revision:
    number, _, name = path.stem.partition("_")
    said = _assignments(path)
    contract, exceptions = said.get("contract"), said.get("lint_exceptions", {})
    if contract is not None and not _is_earlier(contract, number):
        raise ValueError(
            f"{path.name}: contract = {contract!r} must be an earlier revision, as four digits in a string:"
            " the oldest head that can live with the schema after this revision"
        )
    if not isinstance(exceptions, dict) or not all(
        isinstance(why, str) and why for why in exceptions.values()
    ):
        raise ValueError(f"{path.name}: lint_exceptions must be a dict of rule and reason")
    return Revision(number, name, contract, exceptions)


def _is_earlier(contract: object, number: str) -> bool:
    return isinstance(contract, str) and bool(_NUMBER.fullmatch(contract)) and FIRST <= contract < number


def _assignments(path: Path) -> dict[str, Any]:
    """Reads what is plainly assigned to one of our names; importing the module would import Alembic."""
    said: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (target.id for target in targets if isinstance(target, ast.Name)):
                if name in ("contract", "lint_exceptions"):
                    said[name] = _literal(path, name, node.value)
    return said


def _literal(path: Path, name: str, value: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(value) if value is not None else None
    except ValueError:
        raise ValueError(f"{path.name}: {name} must be written out, not computed") from None
