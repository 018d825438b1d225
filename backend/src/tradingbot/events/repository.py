"""Queries on events and on what their receivers depend on."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Uuid,
    any_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tradingbot.api_keys.models import ApiKey
from tradingbot.auth.models import Session
from tradingbot.events.models import EventSequence, StoredEvent
from tradingbot.outbox.models import OutboxRow
from tradingbot.users.models import User


class Numbered(NamedTuple):
    """The number and time that a new event got."""

    sequence: int
    at: datetime


async def append(session: AsyncSession, user_id: UUID, kind: str, data: Mapping[str, Any]) -> Numbered:
    """Stores an event under the user's next number. The number's row is locked until the commit."""
    number = insert(EventSequence).values(user_id=user_id, last=1)
    number = number.on_conflict_do_update(
        index_elements=[EventSequence.user_id],
        set_={"last": EventSequence.last + 1, "updated_at": func.now()},
    )
    numbered = number.returning(EventSequence.last).cte("numbered")
    values = select(
        literal(user_id, Uuid),
        numbered.c.last,
        literal(kind),
        literal(dict(data), JSONB),
        func.clock_timestamp(),
    )
    statement = insert(StoredEvent).from_select(["user_id", "sequence", "type", "data", "created_at"], values)
    row = await session.execute(statement.returning(StoredEvent.sequence, StoredEvent.created_at))
    return Numbered(*row.one())


async def last_of(session: AsyncSession, user_id: UUID) -> int:
    """Gives the number of the user's last event, 0 if there is none."""
    statement = select(EventSequence.last).where(EventSequence.user_id == user_id)
    return (await session.execute(statement)).scalar_one_or_none() or 0


async def list_after(session: AsyncSession, user_id: UUID, after: int, limit: int) -> Sequence[StoredEvent]:
    """Gives the user's events after a number, the oldest first."""
    statement = select(StoredEvent).where(StoredEvent.user_id == user_id, StoredEvent.sequence > after)
    return (await session.execute(statement.order_by(StoredEvent.sequence).limit(limit))).scalars().all()


async def list_of_many(
    session: AsyncSession, after: Mapping[UUID, int], limit: int
) -> dict[UUID, list[StoredEvent]]:
    """Gives for each user the events after their number, at most `limit` each, in one query."""
    numbers = func.unnest(literal(list(after), ARRAY(Uuid)), literal(list(after.values()), ARRAY(BigInteger)))
    wanted = numbers.table_valued("user_id", "after", name="wanted").render_derived()
    newer = (
        select(StoredEvent)
        .where(StoredEvent.user_id == wanted.c.user_id, StoredEvent.sequence > wanted.c.after)
        .order_by(StoredEvent.sequence)
        .limit(limit)
        .lateral("newer")
    )
    statement = select(StoredEvent).from_statement(
        select(newer).select_from(wanted.join(newer, literal(True))).order_by(newer.c.sequence)
    )
    found = defaultdict(list)
    for event in (await session.execute(statement)).scalars():
        found[event.user_id].append(event)
    return found


async def last_of_active(session: AsyncSession, user_ids: Collection[UUID]) -> dict[UUID, int]:
    """Gives the last number of each of these users who is active."""
    statement = (
        select(User.id, func.coalesce(EventSequence.last, 0).label("last"))
        .outerjoin(EventSequence, EventSequence.user_id == User.id)
        .where(_one_of(User.id, user_ids), User.is_active)
    )
    return {row.id: row.last for row in await session.execute(statement)}


async def valid_credentials(session: AsyncSession, ids: Iterable[UUID], now: datetime) -> set[UUID]:
    """Gives those sessions and API keys that are neither revoked nor expired."""
    wanted = list(ids)
    sessions = select(Session.id).where(
        _one_of(Session.id, wanted), Session.revoked_at.is_(None), Session.expires_at > now
    )
    keys = select(ApiKey.id).where(
        _one_of(ApiKey.id, wanted),
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now),
    )
    return set((await session.execute(union_all(sessions, keys))).scalars())


async def outbox_waits(session: AsyncSession, longer_than: timedelta) -> bool:
    """Tells whether some work has been due for longer than this."""
    due = exists().where(OutboxRow.available_at < func.now() - longer_than)
    return bool((await session.execute(select(due))).scalar_one())


async def delete_before(session: AsyncSession, moment: datetime, limit: int) -> int:
    """Deletes at most `limit` events that are older; gives how many."""
    key = (StoredEvent.user_id, StoredEvent.sequence)
    old = select(*key).where(StoredEvent.created_at < moment).order_by(StoredEvent.created_at).limit(limit)
    deleted = await session.execute(delete(StoredEvent).where(tuple_(*key).in_(old)).returning(literal(1)))
    return len(deleted.all())


def _one_of(column: InstrumentedAttribute[UUID], ids: Collection[UUID]) -> ColumnElement[bool]:
    # One array, not a list of parameters: the statement is the same, and prepared, whatever their number.
    return column == any_(literal(list(ids), ARRAY(Uuid)))
