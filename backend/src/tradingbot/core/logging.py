"""Logs: one JSON object a line on standard output, with the ids of what is being worked on.

Lines of our own go straight to the output, past the standard library's `logging`, which takes longer than all
else that intake computes for a webhook. What libraries log goes through `logging` and comes out the same.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from tradingbot.core.log_output import PipeOutput, StreamOutput, log_output
from tradingbot.core.redaction import redact

ErrorReporter = Callable[[str, ExcInfo | None, MutableMapping[str, Any]], None]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# They write addresses with tokens in them; what matters of it we log ourselves.
_INDISCREET = ("urllib3", "requests", "websockets")
# Values that are never secrets, and in every line.
_PLAIN_KEYS = frozenset({"level", "timestamp", "logger", "request_id", "method"})

_encode = json.JSONEncoder(default=str, separators=(",", ":")).encode
_threshold = 20
_reporter: ErrorReporter | None = None
_output: PipeOutput | StreamOutput = StreamOutput()


def configure_logging(level: str) -> None:
    """Sends our own lines and those of libraries to standard output, from this level on."""
    global _threshold, _output
    _threshold = _LEVELS[level]
    # A pipe is opened once; a test may have put something else in its place.
    if not isinstance(_output, PipeOutput) or sys.stdout is not sys.__stdout__:
        _output = log_output()
    structlog.configure(
        processors=[
            _filter,
            structlog.contextvars.merge_contextvars,
            _add_name,
            _add_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _report_error,
            structlog.processors.format_exc_info,
            _redact,
            _render,
        ],
        logger_factory=_Output,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=True,
    )
    handler = _LibraryHandler()
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def working_on(
    *,
    signal_id: UUID | None = None,
    order_id: UUID | None = None,
    strategy_id: UUID | None = None,
) -> AbstractContextManager[Any]:
    """Puts these ids into each line that is logged inside, also by tasks that are started there."""
    ids = {"signal_id": signal_id, "order_id": order_id, "strategy_id": strategy_id}
    known = {name: str(value) for name, value in ids.items() if value is not None}
    return structlog.contextvars.bound_contextvars(**known)


def report_errors_to(reporter: ErrorReporter | None) -> None:
    """Gives the reporter each line of level error: its text, its exception if it has one, and its fields."""
    global _reporter
    _reporter = reporter


class _Output:
    """A logger as structlog wants it: writes the finished line."""

    def __init__(self, name: str = "tradingbot") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        _output.write(line)

    debug = info = warning = error = critical = exception = fatal = warn = msg


class _LibraryHandler(logging.Handler):
    """Turns a record of the standard library into a line like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: EventDict = {"event": record.getMessage(), **structlog.contextvars.get_contextvars()}
            event["logger"], event["level"] = record.name, record.levelname.lower()
            _stamp(None, "", event)
            error = record.exc_info if record.exc_info and record.exc_info[0] is not None else None
            if record.levelno >= logging.ERROR and _reporter is not None:
                _reporter(event["event"], error, dict(event))
            if error is not None:
                event["exception"] = "".join(traceback.format_exception(*error)).rstrip()
            _output.write(_render(None, "", _redact(None, "", event)))
        except (TypeError, ValueError, OSError):
            self.handleError(record)


_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


def _filter(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if _LEVELS.get(method, 40) < _threshold:
        raise structlog.DropEvent
    return event


def _add_name(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["logger"] = logger.name
    return event


def _add_level(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["level"] = method
    return event


def _report_error(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if _reporter is not None and _LEVELS.get(method, 40) >= 40:
        given: Any = event.get("exc_info")
        if isinstance(given, BaseException):
            given = (type(given), given, given.__traceback__)
        elif given and not isinstance(given, tuple):
            given = sys.exc_info()
        fields = {key: value for key, value in event.items() if key not in ("event", "exc_info")}
        _reporter(str(event["event"]), given or None, fields)
    return event


def _redact(_logger: WrappedLogger | None, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if key not in _PLAIN_KEYS and not isinstance(value, int | float):
            event[key] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def _render(_logger: WrappedLogger | None, _method: str, event: EventDict) -> str:
    return _encode(event) + "\n"
