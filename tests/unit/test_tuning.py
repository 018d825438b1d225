# Copyright: the tradingbot.stack maintainers
# SPDX-License-Identifier: Apache-2.0
"""The sizing filters keep to their bounds on every machine they can meet."""

from __future__ import annotations

import itertools

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.tradingbot.stack.plugins.filter.tuning import postgres_tuning, redis_tuning

MEMORY = [256, 320, 512, 1000, 1024, 2048, 4096, 16384, 65536, 262144]
CORES = [0.5, 1, 2, 3, 4, 8, 64]
CONNECTIONS = [1, 20, 100, 500]


def kilobytes(value: object) -> int:
    text = str(value)
    assert text.endswith("kB")
    return int(text[:-2])


@pytest.mark.parametrize(("memory", "cores", "connections"), list(itertools.product(MEMORY, CORES, CONNECTIONS)))
def test_postgres_stays_in_bounds(memory: int, cores: float, connections: int) -> None:
    settings = postgres_tuning(memory, cores, connections)
    limit = memory * 1024
    shared = kilobytes(settings["shared_buffers"])
    work = kilobytes(settings["work_mem"])
    maintenance = kilobytes(settings["maintenance_work_mem"])
    assert shared == limit // 4
    assert work >= 64
    assert maintenance <= 2 * 1024 * 1024
    assert 32 <= kilobytes(settings["wal_buffers"]) <= 16 * 1024
    assert shared < kilobytes(settings["effective_cache_size"]) <= limit
    assert shared + connections * work + 3 * maintenance <= limit * 11 // 16
    assert 0 <= int(settings["max_parallel_workers_per_gather"]) <= int(settings["max_parallel_workers"])
    assert int(settings["max_parallel_workers"]) <= int(settings["max_worker_processes"])


@pytest.mark.parametrize("name", ["shared_buffers", "effective_cache_size", "maintenance_work_mem", "work_mem"])
def test_more_memory_never_means_less(name: str) -> None:
    sizes = [kilobytes(postgres_tuning(memory, 2, 100)[name]) for memory in MEMORY]
    assert sizes == sorted(sizes)


def test_more_connections_never_mean_more_work_mem() -> None:
    sizes = [kilobytes(postgres_tuning(1024, 2, connections)["work_mem"]) for connections in CONNECTIONS]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("memory", "cores", "connections", "expected"),
    [
        (1024, 2, 100, {"shared_buffers": "262144kB", "work_mem": "2427kB", "maintenance_work_mem": "65536kB"}),
        (1024, 2, 100, {"wal_buffers": "8192kB", "huge_pages": "off", "max_parallel_workers_per_gather": 1}),
        (65536, 16, 200, {"maintenance_work_mem": "2097152kB", "huge_pages": "try", "wal_buffers": "16384kB"}),
        (65536, 16, 200, {"max_worker_processes": 16, "max_parallel_workers_per_gather": 4}),
        (256, 1, 20, {"max_parallel_workers_per_gather": 0, "max_parallel_workers": 1, "max_worker_processes": 8}),
    ],
)
def test_postgres_known_machines(memory: int, cores: int, connections: int, expected: dict[str, object]) -> None:
    settings = postgres_tuning(memory, cores, connections)
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize("memory", [64, *MEMORY])
def test_redis_leaves_room_for_its_snapshot(memory: int) -> None:
    maxmemory = redis_tuning(memory)["maxmemory"]
    assert maxmemory.endswith("mb")
    assert int(maxmemory[:-2]) * 2 <= memory
    assert int(maxmemory[:-2]) * 2 >= memory - 1


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: postgres_tuning(255, 2, 100), "memory_mb"),
        (lambda: postgres_tuning("much", 2, 100), "memory_mb"),
        (lambda: postgres_tuning(1024, -1, 100), "cores"),
        (lambda: postgres_tuning(1024, 2, 0), "max_connections"),
        (lambda: redis_tuning(63), "memory_mb"),
    ],
)
def test_nonsense_is_refused_by_name(call: object, names: str) -> None:
    assert callable(call)
    with pytest.raises(AnsibleFilterError, match=names):
        call()
