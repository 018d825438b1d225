"""Requests per second and latency, directly and through nginx with TLS. Load goes to 127.0.0.1 only."""

from __future__ import annotations

import gzip
import json
import ssl
import time
import urllib.request
from pathlib import Path

from tests.testbed import engine
from tests.testbed.hosts import Host
from tests.testbed.shell import TestbedError, output, step

from . import host as bench
from . import parsers
from .report import Aim, Report, Row

DIRECT = f"http://127.0.0.1:{bench.BACKEND_PORT}"
NGINX = f"https://127.0.0.1:{bench.HTTPS_PORT}"
HEALTH = "/api/v1/health"
EMPTY = "/static/empty.txt"
CONNECTIONS = (1, 10, 100)
SECONDS = 5
SCRIPT = Path(__file__).with_name("wrk.lua")
COUNT = "SELECT count(*) FROM signals"


def measure(host: Host, report: Report) -> None:
    """Take all figures under load."""
    prepare(host)
    measure_health(report)
    measure_ab(report)
    measure_webhook(host, report)
    measure_gzip(report)


def prepare(host: Host) -> None:
    """Install the load generators and put an empty file beside nginx's static ones."""
    engine.apt_install("wrk", "apache2-utils")
    bench.open_backend(host)
    bench.on_host(host, "touch", f"{bench.PROJECT}/nginx/static/empty.txt")


def wrk(url: str, connections: int, *arguments: str, seconds: int = SECONDS) -> parsers.Load:
    """Load *url* from one thread with kept-alive connections. Raises TestbedError when a request fails."""
    options = [f"-c{connections}", f"-d{seconds}s", "--timeout=5s", f"--script={SCRIPT}"]
    try:
        printed = output(["wrk", "-t1", *options, url, "--", *arguments], timeout=seconds + 30)
        return parsers.wrk(printed, alerts="alert" in arguments)
    except ValueError as error:
        raise TestbedError(f"{connections} connections to {address(url)}: {error}") from error


def measure_health(report: Report) -> None:
    """Compare health through nginx with health directly, and with an answer that nginx gives from an empty file."""
    for connections in CONNECTIONS:
        with step(f"health on {connections} connections, {SECONDS} s each way"):
            for url in (DIRECT + HEALTH, NGINX + HEALTH, NGINX + EMPTY):
                wrk(url, connections, seconds=1)
            direct, through, empty = (wrk(url, connections) for url in (DIRECT + HEALTH, NGINX + HEALTH, NGINX + EMPTY))
        at = f"{connections} connection{'s' if connections > 1 else ''}"
        aims = (Aim(1000, at_least=True), Aim(0.7, at_least=True, of_ratio=True)) if connections == 10 else ()
        add(report, "Health", f"direct, {at}", direct)
        add(report, "Health", f"nginx with TLS, {at}", through, direct, "direct", aims)
        row = Row(f"nginx with TLS, {at}", through.rate, "req/s", empty.rate, "an empty file from nginx")
        report.add("Health", row)


def measure_ab(report: Report) -> None:
    """Run ApacheBench as people do: a thousand requests, ten at a time."""
    with step("ab -n 1000 -c 10 on health"):
        direct, new, kept = (
            ab(*options) for options in ((DIRECT + HEALTH,), (NGINX + HEALTH,), (NGINX + HEALTH, "-k"))
        )
    chapter = "`ab -n 1000 -c 10` on health"
    add(report, chapter, "direct, a connection for each request", direct)
    add(report, chapter, "nginx with TLS, a handshake for each request", new, direct, "direct")
    add(report, chapter, "nginx with TLS, kept alive (`-k`)", kept, direct, "direct", (Aim(500, at_least=True),))


def ab(url: str, *options: str) -> parsers.Load:
    """Send a thousand requests to *url*, ten at a time. Raises TestbedError when one fails."""
    try:
        return parsers.ab(output(["ab", "-q", "-n", "1000", "-c", "10", *options, url], timeout=60))
    except ValueError as error:
        raise TestbedError(f"ab on {url}: {error}") from error


def measure_webhook(host: Host, report: Report) -> None:
    """Send alerts, each of its own, and make sure that every one that was taken in is in the database."""
    path = webhook_path(host)
    for connections in CONNECTIONS:
        with step(f"alerts on {connections} connections, {SECONDS} s each way"):
            direct = alerts(host, DIRECT + path, connections)
            through = alerts(host, NGINX + path, connections)
        at = f"{connections} connection{'s' if connections > 1 else ''}"
        chapter = "Webhook, each alert committed"
        add(report, chapter, f"direct, {at}", direct)
        add(report, chapter, f"nginx with TLS, {at}", through, direct, "direct")
        if direct.unavailable or through.unavailable:
            report.add(chapter, Row(f"direct, {at}: answered 503, to be sent again", direct.unavailable, ""))
            report.add(chapter, Row(f"nginx with TLS, {at}: answered 503, to be sent again", through.unavailable, ""))


def alerts(host: Host, url: str, connections: int, seconds: int = SECONDS) -> parsers.Load:
    """Send alerts to *url*. Raises TestbedError unless the database has exactly those that were taken in."""
    before = stored(host)
    load = wrk(url, connections, "alert", f"bench-{time.time_ns()}", seconds=seconds)
    time.sleep(1)
    new = stored(host) - before
    # When the time is up, each connection may have one more alert on its way, whose answer nobody reads.
    # A 503 means "not known to be stored, send it again": such an alert may be there or not.
    if not load.requests <= new <= load.requests + connections + load.unavailable:
        raise TestbedError(
            f"{load.requests} alerts were answered 202 at {connections} connections, and {new} are stored"
        )
    return load


def stored(host: Host) -> int:
    """Return the number of alerts in the database."""
    psql = ["psql", "--no-psqlrc", "--username=postgres", "--dbname=tradingbot", "--tuples-only", "--no-align"]
    return int(bench.compose(host, "exec", "-T", "postgres", *psql, "--command", COUNT))


def webhook_path(host: Host) -> str:
    """Make a strategy and return the path of its webhook, which holds its token."""
    name = f"bench-{time.time_ns()}"
    command = ["tradingbot", "strategy", "create", "--user", "bench@example.com", "--name", name, "--json"]
    url = str(json.loads(bench.compose(host, "exec", "-T", "worker", *command))["webhook_url"])
    return "/" + url.split("/", 3)[3]


def measure_gzip(report: Report) -> None:
    """Compare the bytes of a JSON answer with and without compression."""
    plain, packed = (answer(NGINX + "/openapi.json", encoding) for encoding in ("identity", "gzip"))
    if gzip.decompress(packed) != plain:
        raise TestbedError("the compressed answer is not the same as the plain one")
    aim = Aim(0.6, of_ratio=True)
    report.add("Compression", Row("/openapi.json, gzip", len(packed), "bytes", len(plain), "plain", (aim,)))


def answer(url: str, encoding: str) -> bytes:
    """Return the body as it comes over the wire. The certificate is self-signed, and the way is loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = urllib.request.Request(url, headers={"Accept-Encoding": encoding})
    with urllib.request.urlopen(request, timeout=10, context=context) as reply:
        return bytes(reply.read())


def brief(host: Host) -> None:
    """Load the stack without taking figures, so that its memory afterwards can be told."""
    prepare(host)
    with step("ten seconds of load"):
        wrk(NGINX + HEALTH, 10)
        alerts(host, NGINX + webhook_path(host), 10)


def add(
    report: Report,
    chapter: str,
    what: str,
    load: parsers.Load,
    baseline: parsers.Load | None = None,
    against: str = "",
    aims: tuple[Aim, ...] = (),
) -> None:
    """Note the rate and the latencies of one run, beside those of its baseline."""
    report.add(chapter, Row(what, load.rate, "req/s", baseline.rate if baseline else None, against, aims))
    report.add(chapter, Row(f"{what}: p50", load.p50_ms, "ms", baseline.p50_ms if baseline else None, against))
    report.add(chapter, Row(f"{what}: p99", load.p99_ms, "ms", baseline.p99_ms if baseline else None, against))


def address(url: str) -> str:
    """Return *url* without the token of a webhook."""
    before, webhooks, token = url.partition("/webhooks/")
    return f"{before}{webhooks}…" if token else url
