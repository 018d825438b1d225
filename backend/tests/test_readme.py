"""The README names what there is: every setting, command, option and endpoint, and nothing else."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tests.test_ownership import ENDPOINTS, Needs
from tradingbot.cli.main import COMMANDS
from tradingbot.core.settings import Settings
from tradingbot.migrations.runner import MigrationSettings

README = (Path(__file__).parents[1] / "README.md").read_text()
FIELDS = {
    name.upper(): field
    for model in (Settings, MigrationSettings)
    for name, field in model.model_fields.items()
}
NEEDS = {
    "nothing": Needs.NOTHING,
    "read": Needs.READ,
    "trade": Needs.TRADE,
    "session": Needs.SESSION,
    "administrator": Needs.ADMIN,
}


def rows(title: str) -> Iterator[list[str]]:
    """The cells of the tables' rows in a section."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def default_of(field: FieldInfo) -> str:
    """A default as the README writes it."""
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{','.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_settings() -> None:
    named = [name for cell, *_ in rows("Settings") for name in code(cell)]
    assert sorted(named) == sorted(FIELDS)


def test_defaults_of_settings() -> None:
    # These depend on the machine, or are many: described in words.
    described = {"METRICS_NETWORKS", "METRICS_DIR", "WORKER_HEALTH_FILE"}
    for names, defaults, _ in rows("Settings"):
        for name, default in zip(code(names), defaults.split(", "), strict=True):
            if name not in described:
                assert default == default_of(FIELDS[name]), name


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its action, and what it takes."""
    for name, command in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"tradingbot.cli.{command.module}").configure(parser)
        actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        if not actions:
            yield name, parser
        for action, subparser in actions[0].choices.items() if actions else ():
            yield f"{name} {action}", subparser


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for one in parser._actions for text in one.option_strings} - {"-h", "--help"}


def test_commands() -> None:
    named: dict[str, set[str]] = {}
    for cell, _ in rows("Command line"):
        program, command, *rest = code(cell)[0].replace("\\|", "|").split()
        assert program == "tradingbot"
        has_action = bool(rest) and rest[0][0] not in "-["
        for action in rest[0].split("|") if has_action else [""]:
            name = f"{command} {action}".strip()
            assert name not in named
            named[name] = set(re.findall(r"--[a-z-]+", " ".join(rest)))
    assert named == {name: options(parser) for name, parser in parsers()}


def test_endpoints() -> None:
    named: dict[str, Needs] = {}
    for endpoints, needs, _ in rows("Endpoints"):
        for endpoint in code(endpoints):
            *methods, path = endpoint.split()
            named |= {f"{method} {path}": NEEDS[needs] for method in methods}
    # `test_ownership` holds this table to what is served.
    assert named == ENDPOINTS


def test_links_within_lead_somewhere() -> None:
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
