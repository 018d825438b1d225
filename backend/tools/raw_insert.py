"""Inserts rows like those of signals, one in a transaction, as fast as asyncpg can.

Arguments: connections, seconds. The address of the database is in DATABASE_URL. Ends with a line as wrk.lua
prints it. It runs with the backend's Python.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import uvloop

# Columns, defaults, checks and indexes of signals, but no foreign keys.
TABLE = "CREATE TABLE IF NOT EXISTS raw_signals (LIKE signals INCLUDING ALL)"
INSERT = (
    "INSERT INTO raw_signals"
    " (user_id, strategy_id, dedup_key, symbol, action, price, order_id, received_at, payload)"
    " VALUES ($1, $2, $3, 'BTCUSDT', 'buy', 67250.5, $4, $5, $6)"
)


async def insert(connection: asyncpg.Connection, until: float, times: list[float]) -> None:
    """Insert row after row on one connection."""
    user, strategy = uuid4(), uuid4()
    while (started := time.perf_counter()) < until:
        order = f"bench-{uuid4().hex}"
        payload = json.dumps({"symbol": "BTCUSDT", "action": "buy", "price": "67250.5", "order_id": order})
        key = f"body:{uuid4().hex}{uuid4().hex}"
        await connection.execute(INSERT, user, strategy, key, order, datetime.now(UTC), payload)
        times.append(time.perf_counter() - started)


async def main(connections: int, seconds: float) -> None:
    """Connect, insert, print."""
    opened = [await asyncpg.connect(os.environ["DATABASE_URL"]) for _ in range(connections)]
    await opened[0].execute(TABLE)
    times: list[float] = []
    started = time.perf_counter()
    await asyncio.gather(*(insert(connection, started + seconds, times) for connection in opened))
    duration = time.perf_counter() - started
    times.sort()
    figures = {
        "requests": len(times),
        "duration_us": duration * 1e6,
        "bad_status": 0,
        "broken": 0,
        "unavailable": 0,
    }
    for percent in (50, 99):
        figures[f"p{percent}_us"] = times[len(times) * percent // 100] * 1e6
    print(f"result {json.dumps(figures)}")
    await asyncio.gather(*(connection.close() for connection in opened))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
