"""The command line. Commands import what they need only when they run, so that each starts quickly."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from tradingbot import __version__

_EPILOG = """\
Settings come from environment variables, or from files in /run/secrets named like them in lower case.
They are listed in the README.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit code: 0 done, 1 failed, 2 wrong usage or settings that are refused."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "version":
        print(f"tradingbot {__version__}")
        return 0
    if arguments.command == "health":
        return _module(arguments).run(arguments)
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from tradingbot.core.errors import ProblemError
    from tradingbot.core.logging import configure_logging
    from tradingbot.core.probes import ProbeError
    from tradingbot.core.refusal import SettingsRefusedError

    configure_logging("error")
    # Tables refer to each other by name: all have to be known before the first query.
    importlib.import_module("tradingbot.migrations.metadata")
    try:
        return _module(arguments).run(arguments)
    except SettingsRefusedError as error:
        print("tradingbot refuses to start:", file=sys.stderr)
        for problem in error.problems:
            print(f"  - {problem}", file=sys.stderr)
        return 2
    except ProbeError as error:
        print(error, file=sys.stderr)
        return 1
    except ProblemError as error:
        print(f"{error.detail} Run `tradingbot check` to see why.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


class _Command(Protocol):
    def run(self, arguments: argparse.Namespace) -> int: ...


def _module(arguments: argparse.Namespace) -> _Command:
    return cast("_Command", importlib.import_module(f"tradingbot.cli.{arguments.module}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tradingbot", description="The trading bot's backend.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"tradingbot {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="wait for PostgreSQL and Redis, check schema and directories, then start the web server",
        description="Starts the web server, after six checked steps. Does not migrate: a schema that is"
        " not at head is logged, and /api/v1/health/ready answers 503 until `tradingbot migrate` has run.",
    )
    serve.set_defaults(module="serve")

    migrate = commands.add_parser(
        "migrate",
        help="bring the schema to head, under a lock",
        description="Brings the schema to head in one transaction, one process at a time.",
    )
    migrate.add_argument("--check", action="store_true", help="change nothing; exit code 1 if not at head")
    migrate.add_argument(
        "--downgrade",
        metavar="REVISION",
        type=_Late("migrate", "revision"),
        help="go back to a revision, or to 'base'",
    )
    migrate.add_argument(
        "--wait", type=float, default=30, metavar="SECONDS", help="for PostgreSQL (default 30)"
    )
    migrate.set_defaults(module="migrate")

    check = commands.add_parser("check", help="show what `serve` would find; exit code 1 if something fails")
    check.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for each server (default 0)")
    check.set_defaults(module="check")

    _add_create(
        commands, "strategy", "a strategy, and print its webhook address once (PUBLIC_URL is its beginning)"
    )
    _add_create(commands, "api-key", "an API key, and print it once")
    health = commands.add_parser("health", help="ask the server beside this; exit code 1 if it is ill")
    health.set_defaults(module="health")
    commands.add_parser("version", help="print the version")
    return parser


def _add_create(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", command: str, what: str
) -> None:
    group = commands.add_parser(command, help=f"create {what}")
    create = group.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "create", help=what, description=f"Creates {what}. A user who does not exist yet is created too."
    )
    create.add_argument(
        "--user", required=True, type=_Late("accounts", "email"), metavar="EMAIL", help="the owner"
    )
    create.add_argument(
        "--name", required=True, type=_Late("accounts", "name"), help="how you will recognise it"
    )
    create.add_argument("--json", action="store_true", help="print a JSON object instead")
    create.set_defaults(module="accounts")


class _Late:
    """A parser of an argument, imported when the argument is there."""

    def __init__(self, module: str, function: str) -> None:
        self.__name__ = function
        self._module = module

    def __call__(self, text: str) -> object:
        return getattr(importlib.import_module(f"tradingbot.cli.{self._module}"), self.__name__)(text)


if __name__ == "__main__":
    sys.exit(main())
