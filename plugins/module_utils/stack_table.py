# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""What was found on a host, as a text for people. Runs on the host with nothing but Python's own library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SERVICE_COLUMNS = ("SERVICE", "STATE", "HEALTH", "RESTARTS", "VERSION", "MEMORY OF LIMIT")


def table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Return rows of cells with their columns aligned; no line ends in a blank."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(indent + line for line in lines)


def problem_lines(problems: list[dict[str, str]]) -> list[str]:
    """Return each problem as a sentence that names what, why and the way out."""
    return [f"{one['what']}: {one['why']}. Way out: {one['fix']}" for one in problems]


def services_text(services: list[dict[str, Any]], active: str = "") -> str:
    """Return the services as a table; the slot that gets requests has a mark."""
    rows = [list(SERVICE_COLUMNS)]
    for row in services:
        mark = " *" if active and row["service"] == f"backend-{active}" else ""
        rows.append(
            [
                row["service"] + mark,
                row["state"],
                row["health"] or "-",
                str(row["restarts"]),
                row["version"],
                _memory(row),
            ]
        )
    return table(rows) if len(rows) > 1 else "no container of the stack is on this host"


def _memory(row: dict[str, Any]) -> str:
    if row["memory_mb"] is None:
        return "-"
    if row["memory_limit_mb"] is None:
        return f"{row['memory_mb']} MiB, no limit"
    return f"{row['memory_mb']} of {row['memory_limit_mb']} MiB ({row['memory_percent']}%)"


def health_text(report: dict[str, Any]) -> str:
    """Return the report as lines: services, what else was looked at, and whether all is well."""
    count = len(report["problems"])
    verdict = f"{count} problem{'s' if count > 1 else ''} found." if count else "All is well."
    return "\n".join(
        [services_text(report["services"], report["slots"]["active"]), "", table(_facts(report)), "", verdict]
    )


def full_text(report: dict[str, Any]) -> str:
    """Return the report as lines, its problems included."""
    problems = [f"  {number}. {text}" for number, text in enumerate(problem_lines(report["problems"]), start=1)]
    return "\n".join([health_text(report), *problems])


def _facts(report: dict[str, Any]) -> list[list[str]]:
    host, slots = report["host"], report["slots"]
    rows = [
        ["disk", "; ".join(_disks(host))],
        ["memory", f"{_size(host['memory']['available_mb'])} available ({host['memory']['available_percent']:g}%)"],
        ["clock", _clock(host["clock"])],
        [
            "requests go to",
            f"backend-{slots['active']}, release {slots['releases'].get(slots['active'])}" if slots["active"] else "-",
        ],
    ]
    lock = slots["lock"]
    if lock:
        rows.append(["deploy", f"{lock['purpose']}, by {lock['who']}, since {lock['since']}"])
    if report["web"] is not None:
        web = report["web"]
        rows.append(["web", web["error"] or f"{web['url']} answers in {web['milliseconds']} ms"])
    outside = report["network"]["outside"]
    if outside is not None:
        answer = outside["error"] or f"{outside['url']} answers in {outside['milliseconds']} ms"
        rows.append(["from outside", answer])
    if report["proxy"] is not None:
        on = report["proxy"]["maintenance"]
        rows.append(["maintenance", "unknown" if on is None else "ON: all but webhooks gets 503" if on else "off"])
    tls = report["tls"]
    if report["web"] is not None or tls is not None:
        rows.append(
            ["certificate", "TLS is off" if tls is None else tls["error"] or f"{tls['days']} days left ({tls['ends']})"]
        )
    if report["status"] is not None:
        rows += _status(report["status"])
    backup = report["backup"]
    rows.append(
        ["backup", "none on this host" if backup is None else f"{backup['hours']:g} hours old ({backup['path']})"]
    )
    return rows


def _status(status: dict[str, Any]) -> list[list[str]]:
    if status["error"]:
        return [["schema", status["error"]]]
    schema, queue = status["schema"], status["queue"]
    if schema.get("current") == schema.get("head"):
        state = "at head"
    else:
        state = "newer, fits this version" if schema["ok"] else f"this version needs {schema.get('head')}"
    oldest = queue["oldest_seconds"]
    waits = "" if oldest is None or not queue["depth"] else f", the oldest for {oldest:.0f} s"
    return [
        ["schema", f"{schema.get('current') or 'none'}, {state}"],
        ["queue", f"{queue['depth']} waiting{waits}"],
    ]


def _disks(host: dict[str, Any]) -> list[str]:
    named = [(disk["path"], disk) for disk in host["disks"]]
    named += [(volume["mounts"][0]["what"], volume) for volume in host["volumes"] if volume["own"]]
    return [f"{name}: {_size(disk['free_mb'])} free ({disk['free_percent']:g}%)" for name, disk in named]


def _clock(clock: dict[str, Any]) -> str:
    known = {True: "synchronised", False: "not synchronised", None: "unknown whether synchronised"}
    words = known[clock["synchronised"]]
    if clock["offset_seconds"] is None:
        return words
    # What was measured holds the way of the question to the host.
    return f"{words}, within {abs(clock['offset_seconds']):g} s of the controller's"


def _size(megabytes: int) -> str:
    return f"{megabytes / 1024:.1f} GiB" if megabytes >= 1024 else f"{megabytes} MiB"
