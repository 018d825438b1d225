"""Command line of the test bed: `python -m tests.testbed --help`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import base, engine, hosts, images, machine, registry, saved
from .shell import STATE, TestbedError, fail, only_one, output, say


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m tests.testbed",
        description="Real hosts on this machine: a Docker engine, a local registry, Debian hosts with systemd and SSH.",
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="engine, base images, stand-ins, registry, browser; changes nothing when all is there")
    verbs.add_parser("status", help="list the hosts and images")
    verbs.add_parser("down", help="remove all hosts, the registry, the network and the images of the test bed")
    create = verbs.add_parser("create", help="make a host, wait for SSH, print how to reach it as JSON")
    create.add_argument("name")
    create.add_argument(
        "--suite", choices=images.TARGET_SUITES, default="trixie", help="Debian release (default: trixie)"
    )
    create.add_argument(
        "--publish", action="append", default=[], metavar="HOST[:LOCAL]", help="publish a port of the host on 127.0.0.1"
    )
    create.add_argument("--from", dest="saved", default="", metavar="NAME", help="start from this saved host, if there")
    save = verbs.add_parser("save", help="save a host, for others to start from; it reboots")
    save.add_argument("name")
    for saves in (create, save):
        saves.add_argument(
            "--secrets", type=Path, default=STATE / "secrets", help="the folder saved and restored with it"
        )
    for verb, text in (
        ("show", "print how to reach a host as JSON"),
        ("reboot", "reboot a host"),
        ("remove", "remove hosts"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name", nargs="+" if verb == "remove" else None)
    ssh = verbs.add_parser("ssh", help="open a shell on a host, or run a command there")
    ssh.add_argument("name")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    return top


def up() -> None:
    """Make everything but the hosts."""
    engine.ensure()
    # Several scenarios may start at once; one of them builds, the others wait.
    with only_one():
        registry.ensure()
        engine.weigh_containers()
        machine.write_ansible_vars()


def down() -> None:
    """Remove all that the test bed made."""
    for name in hosts.names():
        hosts.remove(name)
    saved.remove_all()
    registry.remove()
    images.remove_all()
    hosts.remove_state()
    machine.remove_ansible_vars()


def bring_up(_: argparse.Namespace) -> None:
    """Make everything but the hosts, and say so."""
    up()
    # For tests alone; the demo and the benchmarks do without.
    with only_one():
        images.browser()
    say("the test bed is ready")


def create(arguments: argparse.Namespace) -> None:
    """Make a host, and what it needs."""
    up()
    publish = {int(p.split(":")[0]): int(p.partition(":")[2] or 0) for p in arguments.publish}
    start = hosts.Start(arguments.suite, arguments.saved, arguments.secrets)
    print(hosts.as_json(hosts.create(arguments.name, start, publish)))


def remove(arguments: argparse.Namespace) -> None:
    """Remove hosts."""
    for name in arguments.name:
        hosts.remove(name)


VERBS: dict[str, Callable[[argparse.Namespace], object]] = {
    "up": bring_up,
    "status": lambda _: status(),
    "down": lambda _: down(),
    "create": create,
    "save": lambda given: print(hosts.as_json(hosts.save(given.name, given.secrets))),
    "show": lambda given: print(hosts.as_json(hosts.describe(given.name))),
    "reboot": lambda given: hosts.reboot(given.name),
    "remove": remove,
    "ssh": lambda given: sys.exit(subprocess.call([*hosts.ssh(hosts.describe(given.name)), *given.command])),
}


def main() -> None:
    """Run one verb of the command line."""
    arguments = parser().parse_args()
    try:
        VERBS[arguments.verb](arguments)
    except TestbedError as error:
        fail(error)


def status() -> None:
    """Print a table of hosts and one of images."""
    if not engine.answers():
        say("no Docker engine answers; `python -m tests.testbed up` gets one going")
        return
    row = "{:<16} {:<14} {:>6}  {}"
    print(row.format("HOST", "ADDRESS", "SSH", "PORTS ON 127.0.0.1"))
    for name in hosts.names():
        host = hosts.describe(name)
        print(row.format(name, host.address, host.ssh_port, " ".join(f"{k}→{v}" for k, v in host.ports.items())))
    print()
    table = "table {{.Repository}}:{{.Tag}}\t{{.Size}}"
    print(output(["docker", "image", "ls", "--filter", f"label={base.LABEL}", "--format", table]))


if __name__ == "__main__":
    main()
