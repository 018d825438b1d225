"""Logs statements that take long. Never their parameters: these are users' data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy.event
import structlog
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.stdlib.get_logger("tradingbot.database")

_STARTED = "tradingbot_query_started"
_LONGEST = 1000


class SlowQueries:
    """Measures statements; those that take so many milliseconds or longer are logged, also if they fail."""

    def __init__(self, milliseconds: float) -> None:
        self._seconds = milliseconds / 1000

    def watch(self, engine: AsyncEngine) -> None:
        """Measures all that `engine` executes."""
        sqlalchemy.event.listen(engine.sync_engine, "before_cursor_execute", self._before)
        sqlalchemy.event.listen(engine.sync_engine, "after_cursor_execute", self._after)
        sqlalchemy.event.listen(engine.sync_engine, "handle_error", self._on_error)

    @contextmanager
    def measured(self, statement: str) -> Iterator[None]:
        """Measures what is executed inside, without SQLAlchemy."""
        started = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            self.account_for(statement, time.perf_counter() - started, failed=failed)

    def account_for(self, statement: str, seconds: float, *, failed: bool = False) -> None:
        """Logs the statement if it took long."""
        if seconds >= self._seconds:
            text = " ".join(statement.split())
            log.warning("slow query", statement=text[:_LONGEST], ms=round(seconds * 1000, 1), failed=failed)

    def _before(self, connection: Any, *_arguments: Any) -> None:
        connection.info[_STARTED] = time.perf_counter()

    def _after(self, connection: Any, _cursor: Any, statement: str, *_arguments: Any) -> None:
        started = connection.info.pop(_STARTED, None)
        if started is not None:
            self.account_for(statement, time.perf_counter() - started)

    def _on_error(self, context: ExceptionContext) -> None:
        started = context.connection.info.pop(_STARTED, None) if context.connection else None
        if started is not None and context.statement:
            self.account_for(context.statement, time.perf_counter() - started, failed=True)
