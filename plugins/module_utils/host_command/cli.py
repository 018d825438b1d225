# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command line of `tradingbot` on a host."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .. import failures
from . import build, clean, containers, maintenance, rules, versions
from .stack import FAILED, OK, USAGE, RefusedError, Stack, read_settings, refuse_without_root

EXIT_CODES = """
exit codes:
  0  done; with health: all is well
  1  failed; with health: something is not well
  2  wrong use, no root, or not to be done on this host: the message says what to do instead
  3  refused: a deploy is under way
  exec, psql, redis-cli and logs end with the exit code of the program that they run
"""
# Their arguments belong to another program.
PASSED_ON: dict[str, Callable[[Stack, list[str]], Any]] = {
    "exec": containers.execute,
    "psql": containers.psql,
    "redis-cli": containers.redis_cli,
}


def parser() -> argparse.ArgumentParser:
    """Return the parser with all verbs."""
    top = argparse.ArgumentParser(
        prog="tradingbot",
        description="Looks after the stack of this host. `backend` stands for the slot that gets requests.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, does: Callable[..., Any] | None, says: str, example: str) -> argparse.ArgumentParser:
        """Add a verb with its help and an example."""
        made = verbs.add_parser(
            name,
            help=says[0].lower() + says[1:].partition(".")[0],
            description=says,
            epilog=f"example:\n  {example}\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(does=does)
        return made

    def with_services(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Let a verb take names of services."""
        made.add_argument("service", nargs="*", metavar="SERVICE", help="postgres, redis, backend, worker, nginx; all")
        return made

    def with_lock(made: argparse.ArgumentParser) -> None:
        """Let a verb go on although a deploy is under way."""
        made.add_argument("--ignore-lock", action="store_true", help="the deploy that holds the lock is dead")

    with_lock(
        with_services(
            verb("up", containers.up, "Start services and wait until they are healthy.", "tradingbot up redis")
        )
    )
    says = "Stop services, the database last. Containers, logs and data are kept; they stay stopped after a reboot."
    with_lock(with_services(verb("down", containers.down, says, "tradingbot down nginx")))
    says = (
        "Stop and start services in place and wait until they are healthy. Without a pause for clients, the backend is"
        " restarted from the controller: playbooks/restart.yml."
    )
    with_lock(with_services(verb("restart", containers.restart, says, "tradingbot restart worker")))
    made = with_services(
        verb("logs", containers.logs, "Show the end of the logs.", "tradingbot logs -f --tail 20 nginx backend")
    )
    made.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    made.add_argument("--tail", type=lines, default="100", metavar="N", help="lines of each service, or all (100)")
    made.add_argument("--since", metavar="TIME", help="from a time on, like 10m or 2026-05-01T08:00:00")
    with_json(verb("ps", containers.ps, "Show the containers of the stack.", "tradingbot ps"))
    says = "Build an image of the backend from a folder on this host. A deploy has to bring it into service."
    made = verb("build", build.build, says, "tradingbot build /srv/tradingbot/backend --version 0.3.0")
    made.add_argument("path", nargs="?", metavar="PATH", help="folder with the Dockerfile")
    made.add_argument("--version", default="local", help="version in its tag and label (local)")
    says = "Remove stopped containers and images of the backend that no kept release runs. Names them and asks first."
    made = verb("clean", clean.clean, says, "tradingbot clean")
    made.add_argument("--yes", action="store_true", help="do not ask")
    with_json(
        verb("health", containers.health, "Look whether all is well. Changes nothing.", "tradingbot health --json")
    )
    says = (
        "Load the stack's firewall and Docker's rules again where they were flushed. Restarts Docker if need be;"
        " containers go on running."
    )
    verb("rules", rules.rules, says, "tradingbot rules")
    says = "Show what runs, the releases that are kept, and the last deploys."
    with_json(verb("version", versions.version, says, "tradingbot version"))
    says = "Run psql as the superuser, in the backend's database. All that follows goes to psql."
    verb("psql", None, says, "tradingbot psql -c 'SELECT count(*) FROM signals'")
    says = "Run redis-cli as the backend's user. All that follows goes to redis-cli."
    verb("redis-cli", None, says, "tradingbot redis-cli --scan")
    says = (
        "Run a program in a container of a service, without one in the worker's, which has the backend's command line."
    )
    verb("exec", None, says, "tradingbot exec tradingbot halt status").usage = "tradingbot exec [SERVICE] CMD ..."
    says = "Answer 503 with a page to all but webhooks, which are taken in and kept, or end that."
    made = verb("maintenance", maintenance.maintenance, says, "tradingbot maintenance on")
    made.add_argument("state", choices=["on", "off", "status"])
    return top


def with_json(made: argparse.ArgumentParser) -> None:
    """Let a verb print for programs."""
    made.add_argument("--json", action="store_true", help="for programs")


def lines(text: str) -> str:
    """Return a number of lines as Docker takes it."""
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines: write one, or all")
    return text


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit code."""
    if not arguments:
        parser().print_help()
        return USAGE
    try:
        if arguments[0] in PASSED_ON and list(arguments[1:2]) != ["--help"]:
            refuse_without_root(arguments[0])
            PASSED_ON[arguments[0]](read_settings(), list(arguments[1:]))
            return OK
        given = parser().parse_args(arguments)
        refuse_without_root(given.verb)
        code: int = given.does(read_settings(), given)
    except RefusedError as refusal:
        print(f"tradingbot: {refusal}", file=sys.stderr)
        return refusal.code
    except BrokenPipeError:
        # Who read the output has gone, as `| head` does.
        sys.stderr.close()
        return FAILED
    except OSError as error:
        print(f"tradingbot: {RefusedError(arguments[0], *failures.os_error(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return code
