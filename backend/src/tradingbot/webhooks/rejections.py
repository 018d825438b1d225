"""Alerts that were answered with an error, for the owner of their address: TradingView shows no answers.

They are noted after the answer, by a task of its own, and as well as may be: when more come than can be
noted, or PostgreSQL is away, some are left out. Alerts of one kind share a row, and each strategy has its
newest rows only, so whoever sends nonsense for ever fills nothing.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.database import Database
from tradingbot.core.errors import ProblemError, UnavailableError
from tradingbot.core.pagination import Cursor
from tradingbot.core.settings import Settings
from tradingbot.core.tasks import stop
from tradingbot.core.tokens import TokenKind, hash_token, is_well_formed
from tradingbot.strategies.models import Strategy
from tradingbot.webhooks.models import RejectedAlert

log = structlog.stdlib.get_logger("tradingbot.webhooks")

# Rows that a strategy keeps, and alerts that may wait to be noted.
KEPT = 50
_LONGEST_QUEUE = 200
_LONGEST_REASON, _LONGEST_KIND = 500, 200
_NUMBER = re.compile(r"\d+")


class _Rejected(NamedTuple):
    token: str
    status: int
    reason: str
    at: datetime


class Rejections:
    """A short queue, and a task that empties it into the table."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._key = settings.secret_key.get_secret_value()
        self._queue: asyncio.Queue[_Rejected] = asyncio.Queue(_LONGEST_QUEUE)
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Start noting."""
        self._task = asyncio.create_task(self._run(), name="rejections")

    def note(self, token: str, error: ProblemError, at: datetime) -> None:
        """Have it noted that an alert to this address was answered with the error; return at once."""
        if is_well_formed(token, TokenKind.WEBHOOK) and not self._queue.full():
            self._queue.put_nowait(_Rejected(token, int(error.status), _reason(error), at))

    async def close(self) -> None:
        """Stop; what still waits is left out."""
        if self._task is not None:
            await stop(self._task)

    async def _run(self) -> None:
        while True:
            rejected = await self._queue.get()
            try:
                async with self._database.transaction() as session:
                    await _store(session, hash_token(rejected.token, self._key), rejected)
                self._failing = False
            except (UnavailableError, SQLAlchemyError) as error:
                # Once: a schema that is not at head yet has no such table.
                if not self._failing:
                    log.warning("rejected alerts are not noted", reason=type(error).__name__)
                self._failing = True


async def list_of_user(
    session: AsyncSession, user_id: UUID, strategy_id: UUID | None, limit: int, after: Cursor | None
) -> Sequence[RejectedAlert]:
    """Return what was rejected of the user's strategies after the cursor, the newest first."""
    statement = select(RejectedAlert).where(RejectedAlert.user_id == user_id)
    if strategy_id is not None:
        statement = statement.where(RejectedAlert.strategy_id == strategy_id)
    if after is not None:
        statement = statement.where(tuple_(RejectedAlert.last_at, RejectedAlert.id) < (after.at, after.id))
    statement = statement.order_by(RejectedAlert.last_at.desc(), RejectedAlert.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


def _reason(error: ProblemError) -> str:
    """Return why, as the sender is told: it names fields and no values."""
    errors: list[dict[str, Any]] = error.extensions.get("errors", [])
    fields = "; ".join(f"{one['field']}: {one['message']}" for one in errors)
    return f"{error.detail} {fields}".strip()[:_LONGEST_REASON]


async def _store(session: AsyncSession, token_hash: str, rejected: _Rejected) -> None:
    whose = select(Strategy.id, Strategy.user_id).where(Strategy.webhook_token_hash == token_hash)
    found = (await session.execute(whose)).one_or_none()
    if found is None:
        return
    strategy_id, user_id = found
    kind = _NUMBER.sub("#", f"{rejected.status} {rejected.reason}")[:_LONGEST_KIND]
    statement = insert(RejectedAlert).values(
        user_id=user_id,
        strategy_id=strategy_id,
        kind=kind,
        status=rejected.status,
        reason=rejected.reason,
        created_at=rejected.at,
        last_at=rejected.at,
    )
    given = statement.excluded
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[RejectedAlert.strategy_id, RejectedAlert.kind],
            set_={"times": RejectedAlert.times + 1, "reason": given.reason, "last_at": given.last_at},
        )
    )
    newest = (
        select(RejectedAlert.id)
        .where(RejectedAlert.strategy_id == strategy_id)
        .order_by(RejectedAlert.last_at.desc(), RejectedAlert.id.desc())
    )
    older = newest.offset(KEPT)
    await session.execute(delete(RejectedAlert).where(RejectedAlert.id.in_(older)))
