"""Records events with the change that they tell of, in the same transaction; reads and forgets them."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.database import RECORDED_EVENTS, Database
from tradingbot.core.errors import GoneError
from tradingbot.core.models import utc_now
from tradingbot.events import repository
from tradingbot.events.models import StoredEvent
from tradingbot.events.schemas import Event, EventOut, EventPage, Holder
from tradingbot.events.tickets import unauthorized

_DELETED_AT_ONCE = 5000


class EventType(StrEnum):
    """What happened."""

    SIGNAL = "signal"
    REFUSAL = "refusal"
    PREDICTION = "prediction"
    ORDER = "order"
    FILL = "fill"
    POSITION = "position"
    HALT = "halt"


class Batch(NamedTuple):
    """Events after a number. `lost` if those right after it are not stored: go on from `last` instead."""

    events: list[Event]
    last: int
    lost: bool


async def record(session: AsyncSession, user_id: UUID, kind: EventType, data: Mapping[str, Any]) -> None:
    """Stores an event under the user's next number; it is published when the transaction is committed.

    `data` is JSON: `model_dump(mode="json")` of what the API shows. From here to the commit all other
    transactions that record events of this user wait: take the locks on rows of your own before, and commit
    soon after.
    """
    numbered = await repository.append(session, user_id, kind, data)
    event = Event(user_id=user_id, sequence=numbered.sequence, type=kind, data=dict(data), at=numbered.at)
    session.info.setdefault(RECORDED_EVENTS, []).append(event)


def from_row(row: StoredEvent) -> Event:
    """The event as it was published."""
    return Event(user_id=row.user_id, sequence=row.sequence, type=row.type, data=row.data, at=row.created_at)


async def read_batch(session: AsyncSession, user_id: UUID, after: int, limit: int) -> Batch:
    """Gives the user's events after a number, the oldest first."""
    # In this order: what is committed between the two queries is then no loss.
    last = await repository.last_of(session, user_id)
    rows = await repository.list_after(session, user_id, after, limit)
    lost = rows[0].sequence != after + 1 if rows else after != last
    return Batch([] if lost else [from_row(row) for row in rows], last, lost)


async def list_page(session: AsyncSession, user_id: UUID, after: int | None, limit: int) -> EventPage:
    """Gives one page of the user's own events; without `after` none, but the number to go on from.

    Raises:
        GoneError: the events after that number are not stored any more, or never were.
    """
    if after is None:
        return EventPage(items=[], next_after=await repository.last_of(session, user_id), has_more=False)
    batch = await read_batch(session, user_id, after, limit + 1)
    if batch.lost:
        raise GoneError(
            "The events after this number are not kept. Load what you show anew and go on after next_after.",
            next_after=batch.last,
        )
    items = [EventOut.model_validate(event, from_attributes=True) for event in batch.events[:limit]]
    return EventPage(
        items=items,
        next_after=items[-1].sequence if items else after,
        has_more=len(batch.events) > limit,
    )


async def start_of(session: AsyncSession, holder: Holder) -> int:
    """Gives the last number of the holder's events.

    Raises:
        UnauthorizedError: the user, session or API key is not valid any more.
    """
    last = (await repository.last_of_active(session, [holder.user_id])).get(holder.user_id)
    if last is None or holder in await revoked(session, [holder], {holder.user_id}):
        raise unauthorized()
    return last


async def revoked(session: AsyncSession, holders: list[Holder], active_users: set[UUID]) -> set[Holder]:
    """Gives those holders whose user is not active, or whose session or API key is not valid."""
    ids = {holder: holder.session_id or holder.api_key_id for holder in holders}
    wanted = {credential for credential in ids.values() if credential is not None}
    valid = await repository.valid_credentials(session, wanted, utc_now()) if wanted else set()
    return {
        holder
        for holder, credential in ids.items()
        if holder.user_id not in active_users or (credential is not None and credential not in valid)
    }


async def forget_old(database: Database, days: int) -> int:
    """Deletes the events that are older than `days`, some at a time; gives how many."""
    moment, total = utc_now() - timedelta(days=days), 0
    while True:
        async with database.transaction() as session:
            deleted = await repository.delete_before(session, moment, _DELETED_AT_ONCE)
        total += deleted
        if deleted < _DELETED_AT_ONCE:
            return total
