"""What other programs print, as numbers. A ValueError says what was not understood, or what went wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@dataclass(frozen=True)
class Load:
    """One run of a load generator: requests with success, how many a second, latencies in milliseconds, answers 503."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    unavailable: int = 0


@dataclass(frozen=True)
class Play:
    """One run of Ansible: tasks that ran and that changed something, seconds by role."""

    tasks: int
    changed: int
    roles: dict[str, float]


def wrk(text: str, *, alerts: bool = False) -> Load:
    """Read the line that wrk.lua prints.

    alerts: 202 is the one good answer and the one in the rate; 503 is an honest refusal that is counted apart.
    Raises ValueError when a request was answered in another way than with success, or not at all.
    """
    line = re.search(r"^result (\{.*\})$", text, re.MULTILINE)
    if not line:
        raise ValueError(f"wrk printed no result: {text.strip()}")
    found: dict[str, int] = json.loads(line.group(1))
    bad, good = (found["other"], found["accepted"]) if alerts else (found["bad_status"], found["requests"])
    if bad or found["broken"]:
        raise ValueError(f"{bad} answers were no success, {found['broken']} requests broke off")
    if not good:
        raise ValueError("not one request was answered with success")
    rate = good / found["duration_us"] * 1e6
    return Load(good, rate, found["p50_us"] / 1000, found["p99_us"] / 1000, found["unavailable"])


def ab(text: str) -> Load:
    """Read what ApacheBench prints. Raises ValueError when a request failed."""
    requests, failed = int(_find(r"^Complete requests:\s+(\d+)", text)), int(_find(r"^Failed requests:\s+(\d+)", text))
    refused = re.search(r"^Non-2xx responses:\s+(\d+)", text, re.MULTILINE)
    if failed or refused:
        raise ValueError(
            f"{failed} requests failed, {refused.group(1) if refused else 0} were answered with no success"
        )
    rate = float(_find(r"^Requests per second:\s+([\d.]+)", text))
    return Load(requests, rate, float(_find(r"^\s+50%\s+(\d+)", text)), float(_find(r"^\s+99%\s+(\d+)", text)))


def size(text: str) -> int:
    """Return the bytes of a size as Docker writes it, like `7.473MiB`."""
    found = re.fullmatch(r"([\d.]+)\s*([A-Za-z]+)", text.strip())
    if not found or found.group(2) not in UNITS:
        raise ValueError(f"not a size: {text!r}")
    return round(float(found.group(1)) * UNITS[found.group(2)])


def docker_stats(text: str) -> dict[str, int]:
    """Read `docker stats --no-stream --format json`: bytes in use by container name."""
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return {row["Name"]: size(row["MemUsage"].split("/")[0]) for row in rows}


def smaps(text: str) -> tuple[int, int]:
    """Add up the smaps_rollup of several processes: proportional and plain resident bytes."""
    pss, rss = (
        sum(int(kilobytes) for kilobytes in re.findall(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)) * 1024
        for name in ("Pss", "Rss")
    )
    if not pss:
        raise ValueError("no process has a resident size")
    return pss, rss


def ansible(text: str) -> Play:
    """Read the recap of ansible-playbook and the seconds of profile_roles. Raises ValueError when a host failed."""
    recaps = re.findall(r"^\S+\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", text, re.MULTILINE)
    if not recaps or any(int(recap[2]) or int(recap[3]) for recap in recaps):
        raise ValueError("the playbook did not get through")
    _, _, after = text.partition("ROLES RECAP")
    roles = {name: float(seconds) for name, seconds in re.findall(r"^(\S+) -+ ([\d.]+)s$", after, re.MULTILINE)}
    roles.pop("total", None)
    return Play(sum(int(recap[0]) for recap in recaps), sum(int(recap[1]) for recap in recaps), roles)


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ValueError(f"nothing like {pattern!r} in: {text.strip()}")
    return found.group(1)
