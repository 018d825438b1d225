# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Looks whether a host's stack is well, changing nothing.

Runs on the host with nothing but Python's own library: the module `stack_health` and the command `tradingbot` share it.
"""

from __future__ import annotations

import calendar
import ctypes
import http.client
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import failures, stack_network, stack_services, stack_volumes, target
from .stack_services import Problem, problem

# What is still well.
THRESHOLDS: dict[str, Any] = {
    "disk_free_percent": 10,
    "memory_available_percent": 5,
    "memory_percent_of_limit": 90,
    "tls_days": 14,
    "queue_depth": 1000,
    "queue_oldest_seconds": 60,
    "backup_max_hours": 26,
    "clock_synchronised": True,
    "clock_offset_seconds": 30,
    "from_outside": True,
}
SERVICES = ("postgres", "redis", "backend", "worker", "nginx")
# Where the backend listens in its container, and what it says there of itself.
BACKEND_PORT = 8001
READY = "/api/v1/health/ready"
INTERNAL = "http://127.0.0.1:8081/configuration"
# Where nginx logs to, in its container, and the unit that listens there.
NGINX_LOG, NGINX_JOURNAL = "/run/journal/dev-log", "systemd-journald@tradingbot.socket"
WEB_ATTEMPTS = 3
# adjtimex(2): the flag of `status` that nothing keeps the clock in time.
STA_UNSYNC = 0x40


@dataclass
class Settings:
    """Where the stack lies, what must run, and what is still well (see THRESHOLDS)."""

    project_dir: str = "/opt/tradingbot"
    project: str = "tradingbot"
    services: list[str] = field(default_factory=lambda: list(SERVICES))
    certificate: str = ""
    backup_dir: str = ""
    firewall: bool = True
    thresholds: dict[str, Any] = field(default_factory=dict)
    controller_time: float | None = None
    timeout: float = 4.0
    # What starts a program in a container waits for a processor, which says nothing about the service.
    program_timeout: float = 15.0
    socket: str = target.DOCKER_SOCKET

    def limit(self, name: str) -> Any:
        """Return a threshold."""
        given = self.thresholds.get(name)
        return THRESHOLDS[name] if given is None else given


def look(settings: Settings) -> dict[str, Any]:
    """Return what was found: services, slots, host, tls, schema, queue, backup, web, network, and all problems."""
    folder = Path(settings.project_dir)
    slots = stack_services.read_slots(folder)
    lock = stack_services.deploy_lock()
    everything = stack_services.containers(settings.project, settings.socket, one_offs=True)
    found = None if everything is None else [one for one in everything if not stack_services.is_one_off(one)]
    by_service = {stack_services.service_of(one): one for one in found or []}
    with ThreadPoolExecutor(max_workers=8) as pool:
        ask = pool.submit
        services = ask(stack_services.describe_all, found or [], settings.socket)
        host = ask(host_state, settings, found or [])
        writes = ask(database_writes, by_service.get("postgres"), settings)
        patience = settings.program_timeout
        status = ask(backend_status, by_service.get("worker"), patience) if "worker" in settings.services else None
        web = (
            ask(web_answer, by_service.get("nginx"), folder, settings.timeout) if "nginx" in settings.services else None
        )
        ready = ask(readiness, by_service.get(slots.service), settings.timeout) if slots.service else None
        proxy = ask(proxy_state, by_service.get("nginx"), patience) if "nginx" in settings.services else None
        tls = ask(certificate, settings, folder) if "nginx" in settings.services else None
        network = ask(network_state, found or [], settings)
        report: dict[str, Any] = {
            "services": services.result(),
            "slots": {"active": slots.active, "releases": slots.releases, "worker": slots.worker, "lock": lock},
            "host": host.result(),
            "database_error": writes.result(),
            "status": _result(status),
            "web": _result(web),
            "readiness": _result(ready),
            "proxy": _result(proxy),
            "network": _result(network),
            "tls": _result(tls),
            "backup": backup_age(Path(settings.backup_dir or folder / "backups"), time.time()),
        }
    report["schema"] = (report["status"] or {}).get("schema")
    report["queue"] = (report["status"] or {}).get("queue")
    closed = stack_network.problems(report["network"], report["web"])
    report["network"]["problems"] = closed
    if found is None:
        why = f"no engine answers at {settings.socket}"
        problems = [problem("Docker", why, "`systemctl status docker` on the host says why; `systemctl start docker`")]
    else:
        expected = stack_services.expected_services(settings.services, slots)
        percent = int(settings.limit("memory_percent_of_limit"))
        problems = stack_services.service_problems(report["services"], expected, percent)
        if "backend" in settings.services:
            problems += stack_services.slot_problems(slots, report["services"], lock)
        running = {row["service"] for row in report["services"] if row["running"]}
        problems += stack_volumes.database_problems(report["database_error"])
        problems += status_problems(report["status"], settings) if "worker" in running else []
        problems += readiness_problems(report["readiness"]) if slots.service in running else []
        # Without its rules the engine itself takes the connections of loopback, and answers nothing.
        if "nginx" in running and not report["network"]["rules"]:
            problems += web_problems(report["web"])
        problems += proxy_problems(report["proxy"], slots, folder) if "nginx" in running else []
        problems += log_problems(by_service["nginx"], folder) if "nginx" in running else []
    problems += closed
    if "nginx" in settings.services and not lock:
        problems += stack_network.replacement_problems(everything or [])
    problems += host_problems(report["host"], settings)
    least = float(settings.limit("disk_free_percent"))
    problems += stack_volumes.volume_problems(report["host"]["volumes"], least)
    problems += certificate_problems(report["tls"], int(settings.limit("tls_days")))
    problems += backup_problems(report["backup"], float(settings.limit("backup_max_hours")))
    report["healthy"] = not problems
    report["problems"] = problems
    return report


def _result(future: Future[Any] | None) -> Any:
    return None if future is None else future.result()


def run(command: list[str], timeout: float) -> tuple[int, str, str]:
    """Run a program and return its exit code, output and errors; 127 when it is not there, 124 when it is late."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {timeout:g} s"
    except OSError as error:
        return 126, "", str(error)
    return done.returncode, done.stdout, done.stderr


def _first_line(text: str) -> str:
    return last_line(next((line for line in text.splitlines() if line.strip()), ""))


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


# The host.


def host_state(settings: Settings, found: list[dict[str, Any]], root: Path = target.ROOT) -> dict[str, Any]:
    """Return the host's disks (each file system once), those of the containers' volumes, memory and clock."""
    paths = [settings.project_dir, *target.docker_roots(settings.socket)]
    return {
        "disks": disks(paths),
        "volumes": stack_volumes.look(found, paths, root),
        "memory": memory(root),
        "clock": clock(settings.controller_time),
    }


def database_writes(container: dict[str, Any] | None, settings: Settings) -> str:
    """Return why PostgreSQL does not write; empty when it does, does not run, or is not of this host."""
    if "postgres" not in settings.services or not ((container or {}).get("State") or {}).get("Running"):
        return ""
    code, out, err = run(["docker", "exec", (container or {})["Id"], *stack_volumes.DATABASE], settings.program_timeout)
    return failures.without_secrets(_first_line(err or out)) if code else ""


def disks(paths: list[str]) -> list[dict[str, Any]]:
    """Return the space at each path; paths on one file system count once."""
    found: dict[int, dict[str, Any]] = {}
    for path in paths:
        here = stack_volumes.file_system(target.existing_parent(path))
        del here["inode"]
        found.setdefault(here.pop("device"), {"path": path, **here})
    return list(found.values())


def memory(root: Path = target.ROOT) -> dict[str, Any]:
    """Return the host's memory in MiB, and what of it programs can still get (proc(5), MemAvailable)."""
    text = (root / "proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    total, available = target.memory_mb(root), int(found.group(1)) // 1024 if found else 0
    return {
        "total_mb": total,
        "available_mb": available,
        "available_percent": round(100 * available / total, 1) if total else 0.0,
    }


def clock(controller: float | None) -> dict[str, Any]:
    """Return whether something keeps the clock in time, and how far it is off the controller's; None if unknown."""
    offset = None if controller is None else round(time.time() - controller, 1)
    return {"synchronised": clock_is_synchronised(), "offset_seconds": offset}


def clock_is_synchronised(libc: Any = None) -> bool | None:
    """Ask the kernel, which is told by chrony, ntpd and systemd-timesyncd; None when it does not say."""
    buffer = ctypes.create_string_buffer(512)
    try:
        state = (libc or ctypes.CDLL(None)).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    # struct timex: modes, then four longs (offset, freq, maxerror, esterror), then status. modes is 0: only asked.
    size = struct.calcsize("@lllll")
    (status,) = struct.unpack_from("@i", buffer.raw, size)
    return None if state < 0 else not status & STA_UNSYNC


def host_problems(host: dict[str, Any], settings: Settings) -> Iterator[Problem]:
    """Yield what the host is short of."""
    least = float(settings.limit("disk_free_percent"))
    for disk in host["disks"]:
        for kind, name in (("free_percent", "space"), ("free_inodes_percent", "inodes")):
            if disk[kind] < least:
                why = f"{disk[kind]:g}% of its {name} are free, {least:g}% are wanted"
                fix = f"`du -xhd1 {disk['path']}` shows what is large; `tradingbot clean` removes unused images"
                yield problem(f"disk of {disk['path']}", why, fix)
    least, available = float(settings.limit("memory_available_percent")), host["memory"]["available_percent"]
    if available < least:
        why = f"{available:g}% ({host['memory']['available_mb']} MiB) are available, {least:g}% are wanted"
        yield problem("memory of the host", why, "`ps aux --sort -rss | head` shows who has it; or give the host more")
    if settings.limit("clock_synchronised") and host["clock"]["synchronised"] is False:
        why = "nothing keeps it in time, and exchanges refuse orders of a clock that is off by a second"
        yield problem("clock", why, "`timedatectl set-ntp true`, or install chrony")
    offset, most = host["clock"]["offset_seconds"], float(settings.limit("clock_offset_seconds"))
    if offset is not None and abs(offset) > most:
        why = f"it is {offset:+g} s off the controller's, {most:g} s are allowed"
        yield problem("clock", why, "`timedatectl set-ntp true` (or mend chrony) on the one that is wrong")


# The certificate.


def certificate(settings: Settings, folder: Path) -> dict[str, Any] | None:
    """Return how many days the certificate on disk is valid; None when the web server does without TLS."""
    configuration = _read(folder / "nginx" / "conf" / "nginx.conf")
    if configuration is not None and not re.search(r"^\s*listen\s+[^;#]*\bssl\b", configuration, re.MULTILINE):
        return None
    path = settings.certificate or str(folder / "nginx" / "tls" / "live" / "fullchain.pem")
    code, out, err = run(["openssl", "x509", "-noout", "-enddate", "-in", path], settings.program_timeout)
    try:
        # Like: notAfter=Nov 26 10:00:00 2027 GMT
        ends = calendar.timegm(time.strptime(out.strip().removeprefix("notAfter="), "%b %d %H:%M:%S %Y GMT"))
    except ValueError:
        why = last_line(err) if code else f"openssl said {out.strip()[:100]!r}"
        return {"path": path, "days": None, "ends": None, "error": why}
    days = (ends - time.time()) / 86400
    return {
        "path": path,
        "days": int(days // 1),
        "ends": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends)),
        "error": "",
    }


def certificate_problems(tls: dict[str, Any] | None, least: int) -> Iterator[Problem]:
    """Yield what is wrong with the certificate."""
    if tls is None:
        return
    renew = "run site.yml, which renews a self-signed one; a given one is renewed by you (nginx_tls_certificate) first"
    if tls["days"] is None:
        yield problem(
            "certificate", f"{tls['path']} cannot be read: {tls['error']}", "run site.yml, which writes it anew"
        )
    elif tls["days"] < 0:
        yield problem("certificate", f"it ended on {tls['ends']}", renew)
    elif tls["days"] < least:
        yield problem("certificate", f"it ends in {tls['days']} days, {least} are wanted", renew)


# The backend's schema and queue.


def backend_status(container: dict[str, Any] | None, timeout: float) -> dict[str, Any] | None:
    """Return what `tradingbot status --json` says in the worker's container; `error` tells why it says nothing."""
    if container is None or not (container.get("State") or {}).get("Running"):
        return None
    command = ["docker", "exec", container["Id"], "tradingbot", "status", "--json"]
    code, out, err = run(command, timeout)
    if code != 0:
        return {"error": last_line(err or out)}
    try:
        told = json.loads(out)
        schema, queue = dict(told["schema"]), dict(told["queue"])
        oldest = queue["oldest_seconds"]
        queue = {"depth": int(queue["depth"]), "oldest_seconds": None if oldest is None else float(oldest)}
        return {"version": told["version"], "schema": schema | {"ok": bool(schema["ok"])}, "queue": queue, "error": ""}
    except (ValueError, KeyError, TypeError):
        return {"error": f"`tradingbot status --json` said {last_line(out)!r}"}


def status_problems(status: dict[str, Any] | None, settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with the schema and the queue."""
    if status is None:
        return
    if status["error"]:
        fix = "`tradingbot logs --tail 50 worker postgres` on the host says more"
        yield problem("schema and queue", f"the backend cannot tell: {status['error']}", fix)
        return
    schema, queue = status["schema"], status["queue"]
    if not schema["ok"]:
        why = f"the database is at {schema.get('current') or 'no revision'}, this version needs {schema.get('head')}"
        yield problem("schema", why, "run site.yml, or deploy the version that the database was migrated for")
    most = int(settings.limit("queue_depth"))
    slow = "`tradingbot logs --tail 50 worker` on the host says what it is at; WORKER_CONCURRENCY gives it more hands"
    if queue["depth"] > most:
        yield problem("queue", f"{queue['depth']} signals wait, up to {most} are well", slow)
    most = int(settings.limit("queue_oldest_seconds"))
    if (queue["oldest_seconds"] or 0) > most:
        yield problem(
            "queue", f"a signal has waited for {queue['oldest_seconds']:.0f} s, up to {most} s are well", slow
        )


def readiness(container: dict[str, Any] | None, timeout: float) -> dict[str, Any] | None:
    """Return what the slot that gets requests says it does without, like Redis; None when it does not say."""
    networks = ((container or {}).get("NetworkSettings") or {}).get("Networks") or {}
    address = next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), "")
    if not address:
        return None
    status, text = _ask("http", address, BACKEND_PORT, READY, "localhost", timeout)
    try:
        told = json.loads(text)
        return {"status": status, "checks": {str(name): str(state) for name, state in told["checks"].items()}}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def readiness_problems(found: dict[str, Any] | None) -> Iterator[Problem]:
    """Yield what a backend that serves does without. What it needs, others look at: the database, the schema."""
    if found is None or found["status"] != http.client.OK:
        return
    missing = [f"{name} {state}" for name, state in found["checks"].items() if state != "ok"]
    if missing:
        why = (
            f"degraded: {'; '.join(missing)}. Alerts are taken and orders placed; live events come later, and a new"
            " WebSocket is refused"
        )
        fix = "`tradingbot logs --tail 50 redis` on the host says why; docs/operations.md, Redis, what may be deleted"
        yield problem("backend", why, fix)


# The web server.


def web_address(container: dict[str, Any]) -> tuple[str, str, int] | None:
    """Return scheme, address and port of the web server as published on the host; None when it is not published."""
    bindings = (container.get("HostConfig") or {}).get("PortBindings") or {}
    for port, scheme in (("8443/tcp", "https"), ("8080/tcp", "http")):
        for binding in bindings.get(port) or []:
            address = binding.get("HostIp") or "127.0.0.1"
            anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
            return scheme, anywhere.get(address, address), int(binding["HostPort"])
    return None


def server_name(folder: Path) -> str:
    """Return a name that the web server answers to."""
    configuration = _read(folder / "nginx" / "conf" / "nginx.conf") or ""
    names = [
        name for line in re.findall(r"^\s*server_name\s+([^;]+);", configuration, re.MULTILINE) for name in line.split()
    ]
    fit = [name for name in names if name != "_" and not name.startswith("~")]
    return fit[0].replace("*", "www").lstrip(".") if fit else "localhost"


def web_answer(container: dict[str, Any] | None, folder: Path, timeout: float) -> dict[str, Any] | None:
    """Ask for /api/v1/health as a client does, through the published port."""
    address = web_address(container) if container else None
    if container is None or not (container.get("State") or {}).get("Running"):
        return None
    if address is None:
        return {"url": "", "status": 0, "milliseconds": 0, "error": "its container publishes no port"}
    scheme, host, port = address
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/api/v1/health"
    status, error, began = 0, "", time.monotonic()
    for attempt in range(WEB_ATTEMPTS):
        if attempt:
            # A container that has just started, or a reload.
            time.sleep(0.3)
        if time.monotonic() - began > timeout:
            break
        start = time.monotonic()
        status, text = _ask(scheme, host, port, "/api/v1/health", server_name(folder), timeout / WEB_ATTEMPTS)
        error = f"it answered {status} {http.client.responses.get(status, '')}".rstrip() if status else text
        if status == http.client.OK:
            return {"url": url, "status": status, "milliseconds": round(1000 * (time.monotonic() - start)), "error": ""}
    return {"url": url, "status": status, "milliseconds": 0, "error": error}


def _ask(scheme: str, host: str, port: int, path: str, name: str, timeout: float) -> tuple[int, str]:
    """Return the status and text of an answer; 0 and the reason when there is none."""
    connection: http.client.HTTPConnection
    if scheme == "https":
        # Over loopback no certificate can name the server; its dates are looked at apart from this.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": name})
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        connection.close()
    return answer.status, text


def web_problems(web: dict[str, Any] | None) -> Iterator[Problem]:
    """Yield what clients would run into."""
    if web is not None and web["status"] != http.client.OK:
        fix = "`tradingbot logs --tail 50 nginx backend` on the host says why"
        yield problem("web server", f"{web['url'] or 'it'} gives no health of the backend: {web['error']}", fix)


def network_state(found: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Return what lies between clients and the containers."""
    running = {stack_services.service_of(one): one for one in found if (one.get("State") or {}).get("Running")}
    name = server_name(Path(settings.project_dir))

    def ask(scheme: str, host: str, port: int, timeout: float) -> tuple[int, str]:
        return _ask(scheme, host, port, "/api/v1/health", name, min(timeout, settings.timeout))

    knock = ask if settings.limit("from_outside") else None
    return stack_network.look(list(running.values()), running.get("nginx"), settings.firewall, knock)


def proxy_state(container: dict[str, Any] | None, timeout: float) -> dict[str, Any] | None:
    """Return what nginx runs: its configuration, which slot gets requests, and whether there is maintenance."""
    if container is None or not (container.get("State") or {}).get("Running"):
        return None
    command = [
        "docker",
        "exec",
        container["Id"],
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "3",
        INTERNAL,
    ]
    code, out, err = run(command, timeout)
    words = out.split()
    if code != 0 or len(words) != 3 or words[2] not in ("0", "1"):
        return {"configuration": "", "active": "", "maintenance": None, "error": last_line(err if code else out)}
    return {"configuration": words[0], "active": words[1], "maintenance": words[2] == "1", "error": ""}


def log_problems(container: dict[str, Any], folder: Path, root: Path = target.ROOT) -> Iterator[Problem]:
    """Yield why nothing reads what nginx logs: datagrams that nobody takes are lost without a word."""
    if NGINX_LOG not in (_read(folder / "nginx" / "conf" / "nginx.conf") or ""):
        # One of an earlier version, until the next site.yml.
        return
    # As the container sees it, where another definition or none may have mounted it.
    seen = root / f"proc/{container['State']['Pid']}/root{NGINX_LOG}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(seen))
        except OSError as error:
            why = f"its lines are lost: nothing takes them at {NGINX_LOG} in its container ({error.strerror})"
            yield problem("nginx's log", why, f"run site.yml, or `systemctl restart {NGINX_JOURNAL}`")


def proxy_problems(proxy: dict[str, Any] | None, slots: stack_services.Slots, folder: Path) -> Iterator[Problem]:
    """Yield where nginx does not run what is on disk."""
    if proxy is None:
        return
    command = f"docker compose --project-directory {folder} exec nginx sh /etc/tradingbot/nginx/apply.sh"
    apply = f"run site.yml, or `{command}`, which says why"
    if proxy["error"]:
        yield problem("nginx", f"it does not say what it runs: {proxy['error']}", apply)
        return
    if slots.chosen and proxy["active"] != f"backend-{slots.chosen}":
        why = f"it sends requests to {proxy['active']}, and live/upstream.conf says backend-{slots.chosen}"
        yield problem("nginx", why, apply)
    found = re.search(
        r"^# configuration ([0-9a-f]{64})$", _read(folder / "nginx" / "conf" / "nginx.conf") or "", re.MULTILINE
    )
    if found and found.group(1) != proxy["configuration"]:
        yield problem("nginx", "it runs an older configuration than the one on disk", apply)


# Backups.


def backup_age(folder: Path, now: float) -> dict[str, Any] | None:
    """Return the newest file below *folder* and its age in hours; None when there is none."""
    newest: tuple[float, str] | None = None
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                written = os.stat(path).st_mtime
            except OSError:  # gone meanwhile
                continue
            newest = max(newest or (written, path), (written, path))
    return newest and {"path": newest[1], "hours": round(max(now - newest[0], 0) / 3600, 1)}


def backup_problems(backup: dict[str, Any] | None, most: float) -> Iterator[Problem]:
    """Yield that the last backup is old. Having none is not a problem: not everybody makes them here."""
    if backup is not None and backup["hours"] > most:
        why = f"the newest one is {backup['hours']:g} hours old, up to {most:g} are well"
        yield problem("backup", why, "look why no newer one was made: `systemctl list-timers`, or make one now")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
