"""Records events with the change that they tell of, in the same transaction."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.database import RECORDED_EVENTS
from tradingbot.events.models import EventSequence, StoredEvent
from tradingbot.events.schemas import Event


class EventType(StrEnum):
    """What happened."""

    SIGNAL = "signal"
    REFUSAL = "refusal"
    PREDICTION = "prediction"
    ORDER = "order"
    FILL = "fill"
    POSITION = "position"
    HALT = "halt"


async def record(session: AsyncSession, user_id: UUID, kind: EventType, data: Mapping[str, Any]) -> None:
    """Stores an event under the user's next number; it is published when the transaction is committed.

    `data` is JSON: `model_dump(mode="json")` of what the API shows.
    """
    statement = insert(EventSequence).values(user_id=user_id, last=1)
    statement = statement.on_conflict_do_update(
        index_elements=[EventSequence.user_id],
        set_={"last": EventSequence.last + 1, "updated_at": func.now()},
    )
    sequence = (await session.execute(statement.returning(EventSequence.last))).scalar_one()
    await session.execute(
        insert(StoredEvent).values(user_id=user_id, sequence=sequence, type=kind, data=dict(data))
    )
    event = Event(user_id=user_id, sequence=sequence, type=kind, data=dict(data))
    session.info.setdefault(RECORDED_EVENTS, []).append(event)
