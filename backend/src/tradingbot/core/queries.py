"""Query parameters that lists have in common."""

from typing import Annotated

from fastapi import Query

from tradingbot.core.moments import Moment

Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
CursorText = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]
SymbolFilter = Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")]
Since = Annotated[Moment | None, Query(description="Then or later.")]
Until = Annotated[Moment | None, Query(description="Before.")]
