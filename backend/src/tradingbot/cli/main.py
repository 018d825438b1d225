"""The command line.

Only the module of the command that is asked for is imported: `health` starts quickly, whatever `serve` needs.
A new command is one line in `COMMANDS` and a module here with `configure`, which adds the command's arguments
to its parser and sets `run`: the function that does the work and gives the exit code.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from tradingbot import __version__

_EPILOG = """\
Settings come from environment variables, or from files in /run/secrets named like them in lower case.
They are listed in the README.
"""


class Command(NamedTuple):
    """Where a command is; a `bare` one needs neither logs nor tables."""

    module: str
    help: str
    bare: bool = False


COMMANDS = {
    "serve": Command(
        "serve", "wait for PostgreSQL and Redis, check schema and directories, then start the web server"
    ),
    "worker": Command("worker", "wait for PostgreSQL, then turn queued signals into orders"),
    "migrate": Command("migrate", "bring the schema to head, under a lock"),
    "status": Command("status", "show version, schema and queue", bare=True),
    "check": Command("check", "show what `serve` would find; exit code 1 if something fails"),
    "strategy": Command("strategies", "create and list strategies; rotate their webhook addresses"),
    "user": Command("users", "create, list, close and open accounts; set passwords"),
    "api-key": Command("api_keys", "create, list and revoke API keys"),
    "order": Command("orders", "list and cancel orders; say what became of one that nobody knows of"),
    "position": Command(
        "positions", "list positions beside what accounts hold; put the book right where it differs"
    ),
    "halt": Command("halts", "stop trading, of one strategy, of a user, or of everybody"),
    "encryption-key": Command("encryption", "count and re-encrypt the stored credentials after a rotation"),
    "model": Command("models", "list, verify and activate the models in MODELS_DIR"),
    "notify": Command("notify", "send a test message to the addresses in NOTIFY_URLS"),
    "health": Command("health", "ask the process beside this; exit code 1 if it is ill", bare=True),
    "version": Command("version", "print the version", bare=True),
}


class _Module(Protocol):
    def configure(self, parser: argparse.ArgumentParser) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit code: 0 done, 1 failed, 2 wrong usage or settings that are refused."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser(words).parse_args(words)
    run = cast("Callable[[argparse.Namespace], int]", arguments.run)
    return run(arguments) if COMMANDS[arguments.command].bare else _run(run, arguments)


def _run(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    from tradingbot.cli.output import print_refusal
    from tradingbot.core.errors import ProblemError, UnavailableError
    from tradingbot.core.logging import configure_logging
    from tradingbot.core.probes import ProbeError
    from tradingbot.core.refusal import SettingsRefusedError

    configure_logging("error")
    # Tables refer to each other by name: all have to be known before the first query.
    importlib.import_module("tradingbot.migrations.metadata")
    try:
        return run(arguments)
    except SettingsRefusedError as error:
        return print_refusal(error.problems)
    except ProbeError as error:
        print(error, file=sys.stderr)
        return 1
    except ProblemError as error:
        why = " Run `tradingbot check` to see why." if isinstance(error, UnavailableError) else ""
        print(f"{error.detail}{why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tradingbot", description="The trading bot's backend.", epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"tradingbot {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help)
        if name == asked:
            module = cast("_Module", importlib.import_module(f"tradingbot.cli.{command.module}"))
            module.configure(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
