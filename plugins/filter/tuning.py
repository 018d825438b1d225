# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters that size PostgreSQL and Redis for the memory and cores of their container.

Sources of the figures:

* PostgreSQL documentation, "Resource Consumption": ``shared_buffers`` of 25 % of memory is a
  reasonable start; ``wal_buffers`` defaults to 1/32 of it, and no more than one WAL segment (16 MB);
  a sort or hash of *each* connection may take ``work_mem``; autovacuum may run
  ``autovacuum_max_workers`` (3) times ``maintenance_work_mem``.
* PGTune (https://pgtune.leopard.in.ua, https://github.com/le0pard/pgtune), profile "web application"
  on SSD: the shares of memory, planner costs, checkpoint and parallel settings below.
* Redis documentation, "Redis administration": while an RDB snapshot or an AOF rewrite runs, Redis can
  use up to twice its normal memory, so ``maxmemory`` is half of what the container may have.
"""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

POSTGRES_MINIMUM_MB = 256
REDIS_MINIMUM_MB = 64


def _whole(name: str, value: object, minimum: int) -> int:
    """Return *value* as an int of at least *minimum*; raise AnsibleFilterError otherwise."""
    try:
        number = int(float(str(value)))
    except ValueError as error:
        raise AnsibleFilterError(f"{name} must be a number, not {value!r}") from error
    if number < minimum:
        raise AnsibleFilterError(f"{name} must be at least {minimum}, not {number}")
    return number


def postgres_tuning(memory_mb: object, cores: object, max_connections: object) -> dict[str, str | int | float]:
    """Return PostgreSQL settings for a container of *memory_mb* MiB and *cores* processors.

    Sizes carry PostgreSQL's units. Worst case by design: shared_buffers (1/4) + one work_mem for every
    connection (at most 1/4) + three autovacuum workers (3/16) stay below 11/16 of the memory; the rest
    is for the connections themselves and the page cache.

    Raises AnsibleFilterError for less than 256 MiB, no core or no connection.
    """
    memory_kb = _whole("memory_mb", memory_mb, POSTGRES_MINIMUM_MB) * 1024
    processors = max(_whole("cores", cores, 0), 1)  # a share of one core counts as one
    connections = _whole("max_connections", max_connections, 1)

    shared_buffers = memory_kb // 4
    maintenance_work_mem = min(memory_kb // 16, 2 * 1024 * 1024)
    worker_processes = max(8, processors)
    work_mem = max((memory_kb - shared_buffers) // ((connections + worker_processes) * 3), 64)
    per_gather = 0 if processors == 1 else min((processors + 1) // 2, 4)
    return {
        "max_connections": connections,
        "shared_buffers": f"{shared_buffers}kB",
        "effective_cache_size": f"{memory_kb * 3 // 4}kB",
        "maintenance_work_mem": f"{maintenance_work_mem}kB",
        "work_mem": f"{work_mem}kB",
        "wal_buffers": f"{min(max(shared_buffers // 32, 32), 16 * 1024)}kB",
        "huge_pages": "try" if memory_kb >= 32 * 1024 * 1024 else "off",
        "min_wal_size": "1GB",
        "max_wal_size": "4GB",
        "checkpoint_completion_target": 0.9,
        "default_statistics_target": 100,
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        "max_worker_processes": worker_processes,
        "max_parallel_workers": processors,
        "max_parallel_workers_per_gather": per_gather,
        "max_parallel_maintenance_workers": per_gather,
    }


def redis_tuning(memory_mb: object) -> dict[str, str]:
    """Return Redis settings for a container of *memory_mb* MiB.

    ``maxmemory`` is half of the container's memory (room for copy-on-write during persistence), and all
    clients' buffers together stay below a tenth of it.

    Raises AnsibleFilterError for less than 64 MiB.
    """
    maxmemory = _whole("memory_mb", memory_mb, REDIS_MINIMUM_MB) // 2
    return {"maxmemory": f"{maxmemory}mb", "maxmemory-clients": "10%"}


class FilterModule:
    """Sizing filters of tradingbot.stack."""

    def filters(self) -> dict[str, object]:
        return {"postgres_tuning": postgres_tuning, "redis_tuning": redis_tuning}
