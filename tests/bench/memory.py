"""What the stack needs: the size of the image and the memory of each service."""

from __future__ import annotations

from tests.testbed.hosts import Host

from . import host as bench
from . import parsers
from .report import Aim, Report, Row

SERVICES = ("postgres", "redis", "backend", "worker", "nginx")
MIB = 1024**2
TOTAL = Aim(750)


def measure_image(host: Host, report: Report) -> None:
    """Take the size of the backend's image, and what it adds to the image that it starts from."""
    image = bench.on_host(host, "docker", "inspect", "--format", "{{.Image}}", container("worker"))
    size = int(bench.on_host(host, "docker", "image", "inspect", "--format", "{{.Size}}", image))
    report.add("Memory and disk", Row("image of the backend", size / 1000**2, "MB", aims=(Aim(250),)))


def measure(host: Host, report: Report, moment: str) -> dict[str, int]:
    """Take the memory of each service, once *moment* (like "idle"). Returns the proportional bytes by service."""
    stats = parsers.docker_stats(bench.on_host(host, "docker", "stats", "--no-stream", "--format", "json"))
    proportional: dict[str, int] = {}
    plain = 0
    names = {service: container(service) for service in SERVICES}
    names["backend"] = container(f"backend-{bench.active_slot(host)}")
    for service, name in names.items():
        pids = bench.on_host(host, "docker", "top", name, "-eo", "pid").split()[1:]
        pss, rss = parsers.smaps(bench.on_host(host, "cat", *(f"/proc/{pid}/smaps_rollup" for pid in pids)))
        proportional[service] = pss
        plain += rss
        counted = stats[name] / MIB
        report.add("Memory and disk", Row(f"{service}, {moment}: PSS", pss / MIB, "MiB", counted, "`docker stats`"))
    total, counted = sum(proportional.values()), sum(stats[name] for name in names.values())
    aims = (TOTAL,)
    report.add("Memory and disk", Row(f"stack, {moment}: PSS", total / MIB, "MiB", plain / MIB, "RSS", aims))
    report.add("Memory and disk", Row(f"stack, {moment}: `docker stats`", counted / MIB, "MiB", aims=aims))
    return proportional


def container(service: str) -> str:
    """Return the name of the container of *service*."""
    return f"tradingbot-{service}-1"
