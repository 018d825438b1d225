# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Looks whether packets of clients get to the stack's containers, and what keeps them out.

Runs on the host as root, with Python's own library, ip, nft and iptables. The command `tradingbot` has a copy.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import stack_services, target
from .stack_services import Problem, problem

# Scheme, address, port and seconds to status and text; status 0 and the reason when nothing answers.
Ask = Callable[[str, str, int, float], tuple[int, str]]

TABLE = ("inet", "tradingbot")
# While nginx's container is replaced, it leads new connections to a second one; there for seconds.
HANDOVER = ("ip", "tradingbot_nginx")
CONFIRMED = Path("/etc/tradingbot/firewall.confirmed.nft")
DAEMON_JSON = Path("/etc/docker/daemon.json")
SYSCTL_FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d")
EVERYWHERE = ("0.0.0.0", "::")
RULE_LOADERS = ("nftables.service", "netfilter-persistent.service")
UNCONFIRMED = "no rules were confirmed"
# What a problem is called, by which the role docker_host knows what to mend.
FORWARDING, FIREWALL, RULES, CLIENTS = "forwarding", "firewall", "Docker's rules", "clients"
REPLACEMENT = "nginx's replacement"
# The client of the look has an address that is nobody's (RFC 5737); the firewall lets it in to the web ports, as it
# does the role's docker_host_firewall_web_sources. Its interface vanishes with the process, however that ends.
OUTSIDE = ipaddress.IPv4Network("192.0.2.0/24")
INTERFACE = "tbhealth"
CLONE_NEWNET = 0x40000000
# A new interface may lose the first packet, and TCP waits a second before the next one.
CONNECT_SECONDS = (0.2, 0.3, 0.5)
ANSWER_SECONDS = 2.0
PROGRAM_SECONDS = 5


class LookError(Exception):
    """What could not be looked at, and why."""


def output(*command: str, stdin: str = "") -> str:
    """Return what a program prints. Raises LookError when it fails, with the end of what it says."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS,
            check=False,
            # `su` keeps the path of a user, who needs no programs of the system's.
            env=os.environ | {"PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LookError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise LookError(f"{command[0]}: {lines[0][:200] if lines else f'exit code {done.returncode}'}")
    return done.stdout


def _listed(*command: str) -> str | None:
    """Return what a program lists; None when there is no such thing, or no such program. Raises LookError."""
    try:
        return output(*command)
    except LookError as error:
        if "No such file or directory" in str(error):
            return None
        raise


def look(
    containers: list[dict[str, Any]], web: dict[str, Any] | None, firewall: bool, ask: Ask | None
) -> dict[str, Any]:
    """Return what lies between clients and the running *containers* of the project, of which *web* is the web server.

    Without *ask* nobody knocks from outside; without *firewall* the host is meant to have none of ours.
    """
    difference, lost, unknown = "", [], {}
    try:
        difference = firewall_difference() if firewall else ""
    except LookError as error:
        unknown[FIREWALL] = str(error)
    try:
        lost = missing_rules(containers)
    except LookError as error:
        unknown[RULES] = str(error)
    return {
        "forwarding": unset_forwarding(containers),
        "firewall": difference,
        "rules": lost,
        "unknown": unknown,
        "flushed_by": flushed_by() if lost else [],
        "outside": from_outside(web, ask) if web and ask else None,
    }


def problems(found: dict[str, Any], web: dict[str, Any] | None) -> list[Problem]:
    """Return what keeps clients out, and what lets in too many. *web* is what the web server answers over loopback."""
    knock = found["outside"]
    closed = knock is not None and knock["status"] == 0
    effect = "no client gets in" if closed else "containers and the world outside may not reach each other"
    told = [*_forwarding_problems(found["forwarding"], effect)]
    if found["firewall"]:
        effect_of_it = effect if closed else "ports may be open to everybody, or closed to clients"
        by_hand = "" if found["firewall"].endswith(UNCONFIRMED) else ", or `tradingbot rules` on the host"
        fix = f"run site.yml{by_hand}"
        told.append(problem(FIREWALL, f"{found['firewall']}: {effect_of_it}", fix))
    if found["rules"]:
        units = " and ".join(found["flushed_by"])
        who = f"{units} loaded its rules after the engine had written these" if units else "something flushed them"
        why = f"they are gone for {', '.join(found['rules'])}: {who}; {effect}"
        fix = "run site.yml, or `tradingbot rules` on the host, which restarts Docker; containers go on running"
        told.append(problem(RULES, why, fix))
    for name, error in found.get("unknown", {}).items():
        why = f"what is loaded could not be looked at: {error}{f'; {effect}' if closed else ''}"
        fix = "look again with `tradingbot health` on the host; if it stays, mend what it names"
        told.append(problem(f"look at {name}", why, fix))
    if closed and not told and (web is None or web["status"]):
        why = (
            f"{knock['url']} does not answer from outside ({knock['error']}), though forwarding, the stack's firewall"
            " and Docker's rules are as they should be"
        )
        fix = (
            "`nft list ruleset` and `iptables-save` on the host show who else drops packets to containers; these came"
            f" from {knock['source']}. If they are right to: `docker_host_health_thresholds: {{from_outside: false}}`"
        )
        told.append(problem(CLIENTS, why, fix))
    if knock is not None and knock["status"] is None:
        fix = "mend what it names, or `docker_host_health_thresholds: {from_outside: false}`"
        told.append(problem("look from outside", f"whether clients get in is unknown: {knock['error']}", fix))
    return told


# Forwarding.


def unset_forwarding(containers: list[dict[str, Any]], root: Path = target.ROOT) -> dict[str, list[str]]:
    """Return the kernel settings that keep packets from containers, each with the files that set it so."""
    wanted = ["net.ipv4.ip_forward"]
    interface = default_interface(root)
    if interface:
        wanted.append(f"net.ipv4.conf.{interface}.forwarding")
    if any(network.get("GlobalIPv6Address") for one in containers for network in networks(one)):
        wanted.append("net.ipv6.conf.all.forwarding")
    off = [name for name in wanted if target.sysctl(name, root) == ["0"]]
    # The first one sets that of each interface, too.
    return {name: setters(name, root) for name in (off[:1] if off[:1] == wanted[:1] else off)}


def default_interface(root: Path = target.ROOT) -> str:
    """Return the interface of the host's IPv4 default route; empty without one."""
    for row in (root / "proc/net/route").read_text().splitlines()[1:]:
        columns = row.split()
        if columns[1] == columns[7] == "00000000":
            return columns[0]
    return ""


def setters(name: str, root: Path = target.ROOT) -> list[str]:
    """Return the files of sysctl.d(5) that set *name* to 0, at a boot or with `sysctl --system`."""
    names = [name, "net.ipv4.conf.all.forwarding"] if name == "net.ipv4.ip_forward" else [name]
    words = "|".join(re.escape(one).replace(r"\.", "[./]") for one in names)
    line = re.compile(rf"^\s*-?\s*({words})\s*=\s*0\s*$", re.MULTILINE)
    files = [path for folder in SYSCTL_FOLDERS for path in sorted((root / folder).glob("*.conf"))]
    return [
        f"/{path.relative_to(root)}"
        for path in [*files, root / "etc/sysctl.conf"]
        if path.is_file() and line.search(path.read_text(errors="replace"))
    ]


def _forwarding_problems(unset: dict[str, list[str]], effect: str) -> Iterator[Problem]:
    for name, files in unset.items():
        said = f" ({' and '.join(files)} says so)" if files else ""
        why = f"{name} is 0{said}, so the host passes no packet on to containers: {effect}"
        fix = f"`sysctl -w {name}=1`" + (f", and take it out of {' and '.join(files)}" if files else "")
        if name == "net.ipv4.ip_forward":
            fix = f"run site.yml, or {fix}"
        yield problem(FORWARDING, why, fix)


# The stack's own firewall.


def firewall_difference(confirmed: Path = CONFIRMED) -> str:
    """Return in what the loaded table is not the confirmed one; empty when it is.

    Raises LookError when they cannot be compared.
    """
    if not confirmed.exists():
        return f"{confirmed} is not there: {UNCONFIRMED}"
    listing = ("nft", "--stateless", "--terse", "list", "table", *TABLE)
    loaded = _listed(*listing)
    if loaded is None:
        return f"the table `{' '.join(TABLE)}` is not loaded"
    # nft prints rules in its own words: those of the file, too, when a network namespace of their own has them.
    script = f'nft --file "$1" && {" ".join(listing)}'
    wanted = output("unshare", "--net", "sh", "-c", script, "sh", str(confirmed))
    return "" if loaded == wanted else f"the table `{' '.join(TABLE)}` is not what {confirmed} says"


# What a replacement of nginx sets up for as long as it takes.


def handover() -> str:
    """Return the address to which new connections of nginx's clients are led instead of it; empty without such rules.

    Raises LookError when that cannot be looked at.
    """
    found = re.search(r"dnat to ([0-9.]+):", _listed("nft", "--stateless", "list", "table", *HANDOVER) or "")
    return found.group(1) if found else ""


def loopback_is_translated() -> bool:
    """Return whether the engine translates connections over loopback, too, and passes none on by a program."""
    return _options().get("userland-proxy") is False


def end_handover() -> None:
    """Have new connections reach nginx as published. Raises LookError."""
    table = " ".join(HANDOVER)
    output("nft", f"table {table}; delete table {table}")


def replacement_problems(found: list[dict[str, Any]]) -> list[Problem]:
    """Return what an interrupted replacement of nginx has left; *found* are the containers, one-offs included."""
    fix = "run site.yml, which finishes it or takes it back"
    beside = [str(one["Name"]).lstrip("/") for one in found if stack_services.is_second_nginx(one)]
    told = [problem(REPLACEMENT, f"it was interrupted, and left the container {name}", fix) for name in beside]
    try:
        address = handover()
    except LookError as error:
        return [*told, problem(f"look at {REPLACEMENT}", f"its rules could not be looked at: {error}", fix)]
    if address:
        why = f"it was interrupted: the table `{' '.join(HANDOVER)}` leads new connections to {address}"
        told.append(problem(REPLACEMENT, why, fix))
    return told


# Docker's rules.


def networks(container: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the networks of a container."""
    return list(((container.get("NetworkSettings") or {}).get("Networks") or {}).values())


def published(container: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Return address ('' for all), port on the host and port in the container of what a container publishes by TCP."""
    ports = (container.get("NetworkSettings") or {}).get("Ports") or {}
    found = {
        (binding.get("HostIp") or "", int(binding["HostPort"]), int(inside.removesuffix("/tcp")))
        for inside, bindings in ports.items()
        if inside.endswith("/tcp")
        for binding in bindings or []
    }
    return sorted(("" if address in EVERYWHERE else address, port, inside) for address, port, inside in found)


def missing_rules(containers: list[dict[str, Any]]) -> list[str]:
    """Return the published ports, and networks, for which the engine's rules are not in the kernel.

    Raises LookError when that cannot be looked at.
    """
    rules = engine_rules()
    if rules is None:
        return []
    missing = [port for one in containers for port in missing_ports(one, rules)]
    return missing + [f"what leaves {subnet}" for subnet in masqueraded(containers) if not _led_out(rules, subnet)]


def missing_ports(container: dict[str, Any], rules: str | None = None) -> list[str]:
    """Return the published ports of a container that *rules*, else those of the kernel, do not lead to it.

    Raises LookError when those of the kernel cannot be looked at.
    """
    known = engine_rules() if rules is None else rules
    addresses = [network["IPAddress"] for network in networks(container) if network.get("IPAddress")]
    missing = [
        f"port {port} of {stack_services.service_of(container)}"
        for address, port, inside in published(container)
        if ":" not in address and known is not None and not _led_in(known, addresses, port, inside)
    ]
    return list(dict.fromkeys(missing))


def engine_rules() -> str | None:
    """Return the rules among which are the engine's; None when it is told to write none.

    It writes them when it or a container starts: by iptables, or from 29 on, if told so, into nftables of its own.
    Raises LookError when the look fails, which is not the same as rules that are gone.
    """
    if _options().get("iptables") is False:
        return None
    found = [_listed("iptables-save"), _listed("nft", "list", "table", "ip", "docker-bridges")]
    if found == [None, None]:
        raise LookError("neither iptables-save nor nft shows rules")
    return "".join(text for text in found if text)


def _options() -> dict[str, Any]:
    try:
        options = json.loads(DAEMON_JSON.read_text())
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def _led_in(rules: str, addresses: list[str], port: int, inside: int) -> bool:
    """Return whether *rules* translate *port* of the host to a container's, and let such packets pass."""
    jumps = (r"^-A PREROUTING .*-j DOCKER$", r"^-A FORWARD .*-j DOCKER(-FORWARD)?$")
    entered = all(re.search(jump, rules, re.MULTILINE) for jump in jumps) or "table ip docker-bridges" in rules
    return entered and any(
        re.search(rf"dport {port} .*(DNAT --to-destination|dnat to) {address}:{inside}\b", rules)
        and re.search(rf"(-d|daddr) {address}(/32)? .*dport {inside} .*(ACCEPT|accept)$", rules, re.MULTILINE)
        for address in map(re.escape, addresses)
    )


def _led_out(rules: str, subnet: str) -> bool:
    """Return whether *rules* give packets that leave *subnet* an address of the host's."""
    return re.search(rf"(-s|saddr) {re.escape(subnet)} .*(MASQUERADE|masquerade)", rules) is not None


def masqueraded(containers: list[dict[str, Any]]) -> list[str]:
    """Return the IPv4 subnets of the containers' networks from which packets go out under the host's address.

    The engine's option ip-masq is about its default bridge only, whose options show it.
    """
    subnets = set()
    for identity in {network.get("NetworkID") for one in containers for network in networks(one)}:
        network = target.docker_get(f"/networks/{identity}") or {}
        options = network.get("Options") or {}
        if network.get("Driver") != "bridge" or network.get("Internal"):
            continue
        if options.get("com.docker.network.bridge.enable_ip_masquerade") != "false":
            subnets |= {entry["Subnet"] for entry in network["IPAM"]["Config"] if ":" not in entry["Subnet"]}
    return sorted(subnets)


def flushed_by() -> list[str]:
    """Return the units that load rules, and have started, stopped or reloaded after the engine's start."""
    properties = "--property=Id,ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic"
    try:
        told = output("systemctl", "show", properties, "docker.service", *RULE_LOADERS)
    except LookError:
        return []
    engine, *others = [dict(line.split("=", 1) for line in block.splitlines()) for block in told.split("\n\n")]
    since = int(engine["ActiveEnterTimestampMonotonic"])
    return [unit["Id"] for unit in others if int(unit["StateChangeTimestampMonotonic"]) > since]


# A client from outside.


def from_outside(container: dict[str, Any], ask: Ask) -> dict[str, Any] | None:
    """Return what the web server answers to a client that is not on the host; None when it is published on loopback.

    `status` is 0 when nothing answers, and None when the host does not let itself be looked at.
    """
    for inside, scheme in ((8443, "https"), (8080, "http")):
        for address, port, found in published(container):
            if found == inside and ":" not in address and not address.startswith("127."):
                return _knock(scheme, address or host_address(), port, ask)
    return None


def host_address() -> str:
    """Return the address that the host has on its way out; empty without such a way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only chooses.
            probe.connect((str(OUTSIDE[-1]), 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _knock(scheme: str, address: str, port: int, ask: Ask) -> dict[str, Any]:
    found: dict[str, Any] = {"url": "", "source": str(OUTSIDE), "status": None, "milliseconds": 0, "error": ""}

    def work() -> None:
        with outside() as (source, gateway):
            host = address or gateway
            found.update(url=f"{scheme}://{host}:{port}", source=source)
            began = time.monotonic()
            status, text = ask(scheme, host, port, ANSWER_SECONDS) if _connects(host, port) else (0, "no connection")
            found.update(status=status, milliseconds=round(1000 * (time.monotonic() - began)))
            found["error"] = "" if status else text

    # A thread can have a network namespace of its own, which ends with it.
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            pool.submit(work).result()
        except (LookError, OSError) as error:
            found["error"] = str(error)
    return found


def _connects(host: str, port: int) -> bool:
    for seconds in CONNECT_SECONDS:
        try:
            socket.create_connection((host, port), seconds).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


@contextmanager
def outside() -> Iterator[tuple[str, str]]:
    """Put the calling thread into a network namespace that reaches the host; yield its address and the host's.

    The thread stays in it to its end. Raises LookError when the host does not let that happen.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    taken = [network for _, network in target.routes()]
    if libc.unshare(CLONE_NEWNET) != 0:
        raise LookError(f"unshare: {os.strerror(ctypes.get_errno())}")
    for number, network in enumerate(OUTSIDE.subnets(new_prefix=30)):
        if any(network.overlaps(other) for other in taken):
            continue
        gateway, source = (str(address) for address in network.hosts())
        name = f"{INTERFACE}{number}"
        try:
            _link(name, gateway, source)
        except LookError as error:
            # The look of somebody else has just taken the name, and with it the addresses.
            if "File exists" in str(error):
                continue
            raise
        try:
            yield source, gateway
        finally:
            output("ip", "link", "delete", "eth0")
        return
    raise LookError(f"the host has a route for {OUTSIDE}, where the client of this look comes from")


def _link(name: str, gateway: str, source: str) -> None:
    # With addresses of their own udev leaves the interfaces alone, and nobody has to ask for them (ARP).
    here, there = "02:00:c0:00:02:02", "02:00:c0:00:02:01"
    host = str(os.getpid())
    output("ip", "link", "add", "eth0", "address", here, "type", "veth", "peer", name, "address", there, "netns", host)
    commands = (
        f"address add {gateway}/30 dev {name}\nlink set {name} up\nneighbour add {source} lladdr {here} dev {name}\n"
    )
    output("nsenter", f"--net=/proc/{host}/ns/net", "ip", "-batch", "-", stdin=commands)
    commands = (
        f"address add {source}/30 dev eth0\n"
        "link set eth0 up\n"
        f"neighbour add {gateway} lladdr {there} dev eth0\n"
        f"route add default via {gateway}\n"
    )
    output("ip", "-batch", "-", stdin=commands)
