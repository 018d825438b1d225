"""What the web processes can do by themselves: no nginx, no Ansible; PostgreSQL (fsync on) and Redis in containers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.testbed import engine
from tests.testbed.shell import ROOT, TestbedError, output, run, step

from . import host as bench
from . import load, parsers
from .report import Aim, Report, Row

CHAPTER = "Backend by itself, on loopback"
BIN = ROOT / ".cache" / "backend-venv" / "bin"
TOOLS = ROOT / "backend" / "tools"
REGISTRY = os.environ.get("TEST_REGISTRY", "127.0.0.1:5000/library")
CONNECTIONS = 32
WORKERS = 4
# What is compared takes turns, so that both see the same moods of the machine; the middle one counts.
TURNS = 3
TURN_SECONDS = 2
# What `tradingbot serve` tells uvicorn.
SERVER = ("--loop=uvloop", "--http=httptools", "--no-access-log", "--no-server-header", "--timeout-keep-alive=90")
MB = 1000**2


def measure(report: Report) -> None:
    """Take all figures; nothing stays."""
    if not (BIN / "tradingbot").exists():
        raise TestbedError(f"the backend is not installed in {BIN.parent}: `make bench` installs it")
    engine.apt_install("wrk")
    bench.FOLDER.mkdir(parents=True, exist_ok=True)
    with servers() as environment, serving(environment) as (port, pid):
        measure_health(report, environment, port)
        measure_intake(report, environment, port)
        measure_memory(report, pid)


def measure_health(report: Report, environment: dict[str, str], port: int) -> None:
    """Compare health with a route of an empty FastAPI application under the same server."""
    health = f"http://127.0.0.1:{port}{load.HEALTH}"
    rates: dict[str, list[parsers.Load]] = {}
    with empty_app(environment) as empty_port, step(f"health and an empty route in turn, {TURNS} times"):
        addresses = {"health": health, "empty": f"http://127.0.0.1:{empty_port}/empty"}
        for address in addresses.values():
            load.wrk(address, CONNECTIONS, seconds=1)
        for _ in range(TURNS):
            for name, address in addresses.items():
                rates.setdefault(name, []).append(load.wrk(address, CONNECTIONS, seconds=TURN_SECONDS))
    ours, empty = (statistics.median(one.rate for one in rates[name]) for name in ("health", "empty"))
    aim = Aim(0.8, at_least=True, of_ratio=True)
    row = Row(f"health at {CONNECTIONS} connections", ours, "req/s", empty, "an empty FastAPI route", (aim,))
    report.add(CHAPTER, row)


def measure_intake(report: Report, environment: dict[str, str], port: int) -> None:
    """Compare alerts, each committed before it is answered, with plain inserts of such rows."""
    url = f"http://127.0.0.1:{port}{strategy_path(environment)}"
    load.wrk(url, CONNECTIONS, "alert", f"warm-{time.time_ns()}", seconds=1)
    with step(f"alerts on {CONNECTIONS} connections and plain inserts in turn, {TURNS} times"):
        turns = [(alerts_stored(environment, url), raw_inserts(environment)) for _ in range(TURNS)]
    alerts, raw = (middle(loads) for loads in zip(*turns, strict=True))
    at, against = f"at {CONNECTIONS} connections", "raw asyncpg insert"
    aims = (Aim(500, at_least=True), Aim(0.5, at_least=True, of_ratio=True))
    report.add(CHAPTER, Row(f"webhook intake {at}", alerts.rate, "req/s", raw.rate, against, aims))
    report.add(CHAPTER, Row(f"webhook intake {at}: p50", alerts.p50_ms, "ms", raw.p50_ms, against))
    report.add(CHAPTER, Row(f"webhook intake {at}: p99", alerts.p99_ms, "ms", raw.p99_ms, against, (Aim(100),)))
    report.add(CHAPTER, Row(f"raw asyncpg insert {at}", raw.rate, "rows/s"))
    if alerts.unavailable:
        report.add(CHAPTER, Row(f"webhook intake {at}: answered 503", alerts.unavailable, ""))


def alerts_stored(environment: dict[str, str], url: str) -> parsers.Load:
    """Send alerts. Raises TestbedError unless those that were taken in are stored and queued."""
    before = stored(environment)
    alerts = load.wrk(url, CONNECTIONS, "alert", f"bench-{time.time_ns()}", seconds=TURN_SECONDS)
    time.sleep(0.5)
    new = stored(environment) - before
    # When the time is up, each connection may have one more alert on its way, whose answer nobody reads.
    if not alerts.requests <= new <= alerts.requests + CONNECTIONS + alerts.unavailable:
        raise TestbedError(f"{alerts.requests} alerts were answered 202, and {new} are stored and queued")
    return alerts


def middle(loads: Sequence[parsers.Load]) -> parsers.Load:
    """Return the medians of several runs, and the sum of what was not taken in."""
    rate, p50, p99 = (statistics.median(getattr(one, name) for one in loads) for name in ("rate", "p50_ms", "p99_ms"))
    return parsers.Load(sum(one.requests for one in loads), rate, p50, p99, sum(one.unavailable for one in loads))


def measure_memory(report: Report, pid: int) -> None:
    """Take the largest of the web processes, the children of *pid*, after the load."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [parsers.smaps(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids]
    pss, rss = max(one[0] for one in found), max(one[1] for one in found)
    row = Row("largest web process after load: PSS", pss / MB, "MB", rss / MB, "RSS", (Aim(110),))
    report.add(CHAPTER, row)


def raw_inserts(environment: dict[str, str]) -> parsers.Load:
    """Insert on as many connections as alerts come on. Raises TestbedError when that fails."""
    command = [str(BIN / "python"), str(TOOLS / "raw_insert.py"), str(CONNECTIONS), str(TURN_SECONDS)]
    return parsers.wrk(checked(command, environment))


def stored(environment: dict[str, str]) -> int:
    """Return the number of signals that are stored. Raises TestbedError unless each is queued once."""
    code = (
        "import asyncio, asyncpg, os\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(os.environ['DATABASE_URL'])\n"
        "    print(*await connection.fetchrow('SELECT (SELECT count(*) FROM signals), count(signal_id),"
        " count(DISTINCT signal_id) FROM outbox'))\n"
        "    await connection.close()\n"
        "asyncio.run(main())"
    )
    signals, queued, different = map(int, checked([str(BIN / "python"), "-c", code], environment).split())
    if not signals == queued == different:
        raise TestbedError(f"{signals} signals are stored and {queued} queued, {different} of them different")
    return signals


def strategy_path(environment: dict[str, str]) -> str:
    """Make a strategy and return the path of its webhook."""
    command = [
        str(BIN / "tradingbot"),
        "strategy",
        "create",
        "--user",
        "bench@example.com",
        "--name",
        "bench",
        "--json",
    ]
    return "/" + str(json.loads(checked(command, environment))["webhook_url"]).split("/", 3)[3]


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start PostgreSQL and Redis, migrate, and give the backend's environment."""
    password = secrets.token_hex(16)
    postgres = (
        "--env=POSTGRES_USER=tradingbot",
        f"--env=POSTGRES_PASSWORD={password}",
        f"{REGISTRY}/postgres:15-alpine",
    )
    redis = (f"{REGISTRY}/redis:7-alpine", "redis-server", "--requirepass", password)
    with container("postgres", 5432, *postgres) as postgres_port, container("redis", 6379, *redis) as redis_port:
        environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
            "ENVIRONMENT": "test",
            "SECRETS_DIR": str(bench.FOLDER / "none"),
            "DATABASE_URL": f"postgresql://tradingbot:{password}@127.0.0.1:{postgres_port}/tradingbot",
            "REDIS_URL": f"redis://:{password}@127.0.0.1:{redis_port}/0",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "WEBHOOK_SECRET": secrets.token_urlsafe(48),
            "ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "HOST": "127.0.0.1",
            "WORKERS": str(WORKERS),
            **{name: str(bench.FOLDER / name.lower()) for name in ("LOGS_DIR", "MODELS_DIR", "CACHE_DIR")},
        }
        checked([str(BIN / "tradingbot"), "migrate", "--wait", "60"], environment)
        yield environment


@contextmanager
def container(name: str, port: int, *arguments: str) -> Iterator[int]:
    """Run a container, and give the port of this machine that its *port* is reached at."""
    full_name = f"tradingbot-bench-{name}-{secrets.token_hex(4)}"
    run(["docker", "run", "--detach", "--rm", "--name", full_name, f"--publish=127.0.0.1::{port}", *arguments])
    try:
        yield int(output(["docker", "port", full_name, f"{port}/tcp"]).splitlines()[0].rpartition(":")[2])
    finally:
        run(["docker", "rm", "--force", "--volumes", full_name], check=False)


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Run `tradingbot serve`, and give its port and process id."""
    port = free_port()
    log = bench.FOLDER / "serve.log"
    with process([str(BIN / "tradingbot"), "serve"], environment | {"PORT": str(port)}, log) as pid:
        until_answered(f"http://127.0.0.1:{port}{load.HEALTH}", log)
        yield port, pid


@contextmanager
def empty_app(environment: dict[str, str]) -> Iterator[int]:
    """Run the empty application, and give its port."""
    port = free_port()
    log = bench.FOLDER / "empty.log"
    listen = ("--host=127.0.0.1", f"--port={port}", f"--workers={WORKERS}", "--log-level=warning")
    with process([str(BIN / "uvicorn"), f"--app-dir={TOOLS}", "empty_app:app", *SERVER, *listen], environment, log):
        until_answered(f"http://127.0.0.1:{port}/empty", log)
        # The first worker answers; the others still start.
        time.sleep(3)
        yield port


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """Run a command for as long as it is needed, and give its process id."""
    with log.open("w") as output_file:
        started = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output_file, stderr=output_file)
    try:
        yield started.pid
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def until_answered(address: str, log: Path) -> None:
    """Wait for an answer. Raises TestbedError after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.2)
    tail = "\n".join(log.read_text().splitlines()[-10:])
    raise TestbedError(f"no answer from {address}; {log} ends in:\n{tail}")


def checked(command: list[str], environment: dict[str, str]) -> str:
    """Return what a command prints. Raises TestbedError when it fails."""
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise TestbedError(f"exit {done.returncode} from {command[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
