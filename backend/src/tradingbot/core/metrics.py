"""What is counted and measured, for Prometheus.

Labels have few values: no ids, no symbols, no paths but route templates (tokens are part of paths). The web
workers share their counts through files, see `metrics_files`; a process alone keeps them in memory.
"""

import functools
import importlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client
import sqlalchemy.event
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool
from starlette.types import Scope

from tradingbot import __version__
from tradingbot.core.metrics_files import VARIABLE

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Web.
REQUESTS = Counter(
    "tradingbot_http_requests", "Requests answered; status 0 is none.", ["route", "method", "status"]
)
REQUEST_SECONDS = Histogram(
    "tradingbot_http_request_seconds", "Time to answer.", ["route", "method"], buckets=_FAST
)
# outcome: accepted, duplicate, stale, forbidden, unknown, too_large, invalid, unavailable.
SIGNALS_RECEIVED = Counter("tradingbot_webhook_alerts", "Alerts by what was answered.", ["outcome"])
WEBSOCKETS = Gauge(
    "tradingbot_websocket_connections", "Open WebSocket connections.", multiprocess_mode="livesum"
)
# reason: slow, idle, revoked, error.
WEBSOCKETS_DROPPED = Counter("tradingbot_websocket_drops", "Clients that we closed.", ["reason"])
# reason: queue_full, redis, error.
EVENT_PUBLISH_FAILURES = Counter(
    "tradingbot_event_publish_failures",
    "Live events that were not sent through Redis; clients get them from PostgreSQL.",
    ["reason"],
)

# Worker. status: SignalStatus; state: OrderState; side: Side; rule: Rule.
SIGNALS = Counter("tradingbot_signals", "Signals by what became of them.", ["status"])
ORDERS = Counter("tradingbot_orders", "Changes of orders, by the state they came to.", ["exchange", "state"])
FILLS = Counter("tradingbot_fills", "Fills.", ["exchange", "side"])
REFUSALS = Counter("tradingbot_refusals", "Signals that were refused.", ["rule"])
# operation: the method of Exchange; outcome: ok, rejected, not_sent, unknown, credentials, error, or, if we
# did not wait any longer, abandoned.
EXCHANGE_CALLS = Counter(
    "tradingbot_exchange_calls", "Calls to exchanges.", ["exchange", "operation", "outcome"]
)
EXCHANGE_SECONDS = Histogram(
    "tradingbot_exchange_call_seconds", "Time that exchanges took.", ["exchange", "operation"], buckets=_SLOW
)
# kind: position.
RECONCILE_DIFFERENCES = Counter(
    "tradingbot_reconcile_differences", "Times that an exchange holds something else than we do.", ["kind"]
)
# outcome: sent, failed, dropped, collapsed.
NOTIFICATIONS = Counter("tradingbot_notifications", "Messages to people.", ["outcome"])

# Both. pool: the name given to watch_pool.
POOL_IN_USE = Gauge(
    "tradingbot_database_connections_in_use",
    "Connections to PostgreSQL that are in use.",
    ["pool"],
    multiprocess_mode="livesum",
)
_BUILD = Gauge("tradingbot_build_info", "The version.", ["version", "python"], multiprocess_mode="max")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED = "unmatched"
_OUTCOMES = {
    "RejectedError": "rejected",
    "NotSentError": "not_sent",
    "OutcomeUnknownError": "unknown",
    "CredentialsError": "credentials",
    "TimeoutError": "unknown",
}

# Finding a metric's child by its labels is the slow part of counting: once for each combination.
_request_children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


def observe_request(route: str, method: str, status: int, seconds: float) -> None:
    """Counts an answered request under its route's template."""
    children = _request_children.get((route, method, status))
    if children is None:
        known = method if method in _METHODS else "other"
        children = (REQUESTS.labels(route, known, str(status)), REQUEST_SECONDS.labels(route, known))
        if known == method:
            _request_children[route, method, status] = children
    children[0].inc()
    children[1].observe(seconds)


def route_of(scope: Scope) -> str:
    """Gives the template of the route that took the request, such as `/api/v1/signals/{signal_id}`.

    The route knows its template within its router; what stands before it in the path is the routers' prefix.
    """
    template = getattr(scope.get("route"), "path", None)
    if not template:
        return _UNMATCHED
    prefix: str = scope["path"].rsplit("/", template.count("/"))[0]
    return prefix + str(template)


@contextmanager
def exchange_call(exchange: str, operation: str) -> Iterator[None]:
    """Counts and measures one call to an exchange; the outcome follows from the error, if there is one."""
    started = time.perf_counter()
    outcome = "abandoned"
    try:
        yield
        outcome = "ok"
    except Exception as error:
        kinds = (kind.__name__ for kind in type(error).__mro__)
        outcome = next((_OUTCOMES[kind] for kind in kinds if kind in _OUTCOMES), "error")
        raise
    finally:
        EXCHANGE_CALLS.labels(exchange, operation, outcome).inc()
        EXCHANGE_SECONDS.labels(exchange, operation).observe(time.perf_counter() - started)


def watch_pool(engine: AsyncEngine, name: str) -> None:
    """Keeps the number of the engine's connections that are in use; `name` is the label."""
    in_use = POOL_IN_USE.labels(name)

    def checked_out() -> int:
        pool = engine.sync_engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    # Set, not added up: a connection that is lost may be given back without having been handed out.
    def handed_out(*_arguments: Any) -> None:
        in_use.set(checked_out())

    def given_back(*_arguments: Any) -> None:  # told just before it is
        in_use.set(max(checked_out() - 1, 0))

    sqlalchemy.event.listen(engine.sync_engine, "checkout", handed_out)
    sqlalchemy.event.listen(engine.sync_engine, "checkin", given_back)


@functools.cache
def _outbox_gauges() -> tuple[Gauge, Gauge]:
    # Made when they are first set: the web process would show zeros.
    return (
        Gauge("tradingbot_outbox_rows", "Rows that wait in the outbox, or are worked on."),
        Gauge("tradingbot_outbox_oldest_seconds", "Time that the oldest row that is due has waited."),
    )


def set_outbox(rows: int, oldest: float) -> None:
    """Tells of the outbox; `oldest` is in seconds. Each worker tells the same: it is one table."""
    depth, age = _outbox_gauges()
    depth.set(rows)
    age.set(oldest)


def set_build_info() -> None:
    """Makes the version a metric."""
    _BUILD.labels(__version__, platform.python_version()).set(1)


def exposition() -> bytes:
    """Gives all metrics as text: those of all web workers, or else those of this process. Reads files."""
    if not os.environ.get(VARIABLE):
        return prometheus_client.generate_latest(REGISTRY)
    registry = CollectorRegistry()
    collect: Any = importlib.import_module("prometheus_client.multiprocess").MultiProcessCollector
    collect(registry)
    return prometheus_client.generate_latest(registry)


def serve_metrics(port: int, address: str = "0.0.0.0") -> None:
    """Answers GET /metrics on a port of its own, from a thread that ends with the process; 0 is off.

    Raises:
        OSError: the port is taken.
    """
    if port:
        prometheus_client.start_http_server(port, address)
