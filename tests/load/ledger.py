"""Compares what clients were told with what the database holds: each alert once, no order twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .result import Result

# SQL → rows, each with its columns separated by a bar.
Query = Callable[[str], list[str]]

SIGNALS = "SELECT payload->>'id', id FROM signals WHERE payload->>'id' LIKE '{run}-%'"
ORDERS = """
SELECT orders.signal_id, count(*) FROM orders JOIN signals ON signals.id = orders.signal_id
WHERE signals.payload->>'id' LIKE '{run}-%' GROUP BY 1 HAVING count(*) > 1
"""
FILLED_TWICE = """
SELECT orders.id, sum(fills.quantity) FROM orders JOIN fills ON fills.order_id = orders.id
JOIN signals ON signals.id = orders.signal_id
WHERE signals.payload->>'id' LIKE '{run}-%' GROUP BY orders.id, orders.quantity
HAVING sum(fills.quantity) > orders.quantity
"""
QUEUED = "SELECT count(*) FROM signals WHERE payload->>'id' LIKE '{run}-%' AND status = 'queued'"
FAILED = "SELECT id, status_reason FROM signals WHERE payload->>'id' LIKE '{run}-%' AND status = 'failed'"


def problems(result: Result, query: Query) -> list[str]:
    """Return what is wrong, a sentence each; nothing is wrong with what was not answered and is there all the same."""
    if not result.accepted:
        return []
    run = run_of(result)
    stored = [row.split("|") for row in query(SIGNALS.format(run=run))]
    found = [
        f"alert {alert} is stored {count} times" for alert, count in Counter(a for a, _ in stored).items() if count > 1
    ]
    held = dict(stored)
    for alert, signal in result.accepted.items():
        if alert not in held:
            found.append(f"alert {alert} was answered 202 and is not stored")
        elif held[alert] != signal:
            found.append(f"alert {alert} was answered 202 as {signal} and is stored as {held[alert]}")
    found += [f"signal {row.replace('|', ' has ')} orders" for row in query(ORDERS.format(run=run))]
    found += [f"order {row.replace('|', ' is filled with ')}" for row in query(FILLED_TWICE.format(run=run))]
    found += [f"signal {row.replace('|', ' failed: ')}" for row in query(FAILED.format(run=run))]
    return found


def queued(result: Result, query: Query) -> int:
    """Return how many of the run's alerts wait for the worker."""
    return int(query(QUEUED.format(run=run_of(result)))[0]) if result.accepted else 0


def run_of(result: Result) -> str:
    """Return what the numbers of all alerts of a run begin with. Raises ValueError when it is none of ours."""
    run = next(iter(result.accepted)).partition("-")[0]
    if not run.isalnum():
        raise ValueError(f"not a run of this client: {run!r}")
    return run
