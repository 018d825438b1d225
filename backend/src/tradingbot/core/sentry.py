"""Reports errors to Sentry, if SENTRY_DSN is given. Its library is imported only then.

What is reported is what is logged as an error: there is one place that decides what that is. No request, no
local variable and no breadcrumb goes with it, and all text is redacted like the log.
"""

import importlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal

from structlog.typing import ExcInfo

from tradingbot import __version__
from tradingbot.core.logging import report_errors_to
from tradingbot.core.redaction import redact
from tradingbot.core.settings import Settings

_FLUSH_SECONDS = 2.0
# Fields of a log line by which reports can be searched.
_TAGS = ("request_id", "signal_id", "order_id", "strategy_id", "logger")


@contextmanager
def reporting_errors(settings: Settings, process: Literal["web", "worker"]) -> Iterator[None]:
    """Reports errors of this process while it lasts; does nothing without SENTRY_DSN.

    At its end it sends what waits, for 2 s at most, and blocks meanwhile.
    """
    if settings.sentry_dsn is None:
        yield
        return
    sdk = importlib.import_module("sentry_sdk")
    sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        release=f"tradingbot@{__version__}",
        environment=settings.environment,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_client_reports=False,
        before_send=_scrub,
        shutdown_timeout=_FLUSH_SECONDS,
    )

    def report(message: str, error: ExcInfo | None, fields: MutableMapping[str, Any]) -> None:
        if str(fields.get("logger", "")).startswith("sentry_sdk"):
            return
        with sdk.new_scope() as scope:
            scope.set_tag("process", process)
            for name in _TAGS:
                if name in fields:
                    scope.set_tag(name, fields[name])
            scope.set_context("log", {"event": message, **fields})
            if error is None:
                sdk.capture_message(message, level="error")
            else:
                sdk.capture_exception(error)

    report_errors_to(report)
    try:
        yield
    finally:
        report_errors_to(None)
        sdk.get_client().close(timeout=_FLUSH_SECONDS)


def _scrub(event: Any, _hint: Any) -> Any:
    if isinstance(event, str):
        return redact(event)
    if isinstance(event, dict):
        return {key: _scrub(value, None) for key, value in event.items()}
    if isinstance(event, list | tuple):
        return [_scrub(value, None) for value in event]
    return event
