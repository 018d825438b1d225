# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Whether the stack can write where it keeps its data: the file systems of its volumes and bind mounts.

Runs on the host with nothing but Python's own library: the health check uses it.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import failures, stack_services, target
from .stack_services import Problem, problem

PROBE_BYTES = 1 << 16
# Really writes, for a temporary table gets its file at once; and leaves nothing behind.
STATEMENT = (
    "BEGIN; CREATE TEMPORARY TABLE health ON COMMIT DROP AS"
    " SELECT repeat('x', 1000) FROM generate_series(1, 50); ROLLBACK"
)
PSQL = ["psql", "--no-psqlrc", "--quiet", "--no-password", "--username=postgres", "--dbname=postgres"]
DATABASE = [*PSQL, f"--command={STATEMENT}"]


def look(
    containers: Iterable[dict[str, Any]], known: Iterable[str] = (), root: Path = target.ROOT
) -> list[dict[str, Any]]:
    """Return each file system that containers have mounted, once: its mounts, what is free, and the error of a write.

    `own` tells whether it is another one than those of the *known* paths. *root* is the root of the file system.
    """
    shared = {file_system(target.existing_parent(path))["device"] for path in known}
    found: dict[int, dict[str, Any]] = {}
    probed: set[tuple[int, int]] = set()
    for mount in sorted(_mounts(containers, root), key=lambda one: (not one["writable"], one["service"])):
        try:
            here = file_system(mount["seen"])
        except OSError:  # the container has ended meanwhile
            continue
        device, folder = here.pop("device"), here.pop("inode")
        row = found.setdefault(device, {"own": device not in shared, **here, "mounts": [], "error": ""})
        row["mounts"].append({name: mount[name] for name in ("service", "what", "path", "source", "writable")})
        if mount["writable"] and not row["error"] and (device, folder) not in probed:
            probed.add((device, folder))
            told = write_error(mount["seen"])
            row["error"] = told and f"{mount['service']} cannot write to {mount['path']} ({told})"
    return list(found.values())


def file_system(path: str) -> dict[str, Any]:
    """Return device and inode of a folder, and what is free on its file system. Raises OSError when it is not there."""
    here, stats = os.stat(path), os.statvfs(path)
    # As df counts: root's reserve is neither free nor in use.
    total = stats.f_blocks - stats.f_bfree + stats.f_bavail
    return {
        "device": here.st_dev,
        "inode": here.st_ino,
        "free_mb": stats.f_bavail * stats.f_frsize >> 20,
        "free_percent": round(100 * stats.f_bavail / total, 1) if total else 100.0,
        "free_inodes_percent": round(100 * stats.f_favail / stats.f_files, 1) if stats.f_files else 100.0,
    }


def _mounts(containers: Iterable[dict[str, Any]], root: Path) -> Iterator[dict[str, Any]]:
    for container in containers:
        pid = (container.get("State") or {}).get("Pid") or 0
        for mount in container.get("Mounts") or []:
            # A socket, like the journal's, keeps nothing.
            if mount.get("Type") not in ("volume", "bind") or Path(mount["Source"]).is_socket():
                continue
            # As the container sees it: what was mounted on the host later is not there, and the other way round.
            seen = str(root / f"proc/{pid}/root{mount['Destination']}") if pid else mount["Source"]
            # A file, like a secret: its folder tells.
            folder = not os.path.isfile(mount["Source"])
            yield {
                "service": stack_services.service_of(container),
                "what": f"volume {mount['Name']}" if mount.get("Name") else f"folder {mount['Source']}",
                "path": mount["Destination"],
                "source": mount["Source"],
                "seen": seen if folder else os.path.dirname(mount["Source"]),
                "writable": bool(mount.get("RW")) and folder,
            }


def write_error(folder: str) -> str:
    """Return why nothing can be written into *folder*, empty when it can: by a file that never gets a name there."""
    try:
        stats = os.statvfs(folder)
        # The reserve lets root write, and no service, for none runs as root.
        if stats.f_blocks and stats.f_bavail * stats.f_frsize < PROBE_BYTES:
            return os.strerror(errno.ENOSPC)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def volume_problems(rows: list[dict[str, Any]], least: float) -> Iterator[Problem]:
    """Yield where nothing can be written, and the file systems of their own with less than *least* percent free."""
    for row in rows:
        first = row["mounts"][0]
        left = f"{row['free_mb']} MiB ({row['free_percent']:g}%) and {row['free_inodes_percent']:g}% of the inodes"
        others = sorted({f"{one['service']} {one['path']}" for one in row["mounts"][1:] if one["writable"]})
        also = f", which has {', '.join(others)}, too" if others else ""
        on = f"are free on its file system{also}"
        fix = f"make it larger, or free space: `du -xhd1 {first['source']}` on the host shows what is large"
        fix += "; remove no file that is PostgreSQL's own" if first["service"] == "postgres" else ""
        if row["error"]:
            yield problem(first["what"], f"{row['error']}: {left} {on}", fix)
        elif row["own"] and min(row["free_percent"], row["free_inodes_percent"]) < least:
            where = f"(mounted at {first['path']} in {first['service']})"
            yield problem(first["what"], f"{left} {on} {where}, {least:g}% are wanted", fix)


def database_problems(error: str) -> Iterator[Problem]:
    """Yield that PostgreSQL does not write, for the reason that it gave."""
    if error:
        fix = " ".join(failures.causes(error)) or "`tradingbot logs --tail 50 postgres` on the host says more"
        yield problem("postgres", f"it does not write, so alerts are answered 503: {error}", fix)
