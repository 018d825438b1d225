"""Live events: what is published between processes, and what clients get."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tradingbot.core.models import utc_now
from tradingbot.core.redis import PREFIX

CHANNEL = f"{PREFIX}events"
# What a client offers in Sec-WebSocket-Protocol, beside its ticket, and the server accepts.
PROTOCOL = "tradingbot.v1"
TICKET_PREFIX = "ticket."

_AT = "2026-01-05T12:00:01.250000Z"
_EVENT: dict[str, JsonValue] = {
    "sequence": 41,
    "type": "order",
    "data": {"id": "…", "state": "filled"},
    "at": _AT,
}


class EventOut(BaseModel):
    """Something that happened; `data` is what the API shows of it, amounts as decimal strings."""

    model_config = ConfigDict(json_schema_extra={"example": _EVENT})

    sequence: int = Field(description="1 for your first event, then one more for each.")
    type: str = Field(description="signal, refusal, prediction, order, fill, position or halt.")
    data: dict[str, Any]
    at: datetime


class Event(EventOut):
    """An event on its way through Redis."""

    user_id: UUID
    sequence: int = 0
    at: datetime = Field(default_factory=utc_now)

    def for_client(self) -> str:
        """The message as JSON."""
        return self.model_dump_json(exclude={"user_id"})


class EventPage(BaseModel):
    """Events after a number, the oldest first."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"items": [_EVENT], "next_after": 41, "has_more": False}}
    )

    items: list[EventOut]
    next_after: int = Field(description="What to give as `after` the next time.")
    has_more: bool


class TicketOut(BaseModel):
    """A ticket for one WebSocket connection."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "ticket": "tbt_…",
                "protocols": [PROTOCOL, f"{TICKET_PREFIX}tbt_…"],
                "expires_in": 30,
            }
        }
    )

    ticket: str
    protocols: list[str] = Field(description="For Sec-WebSocket-Protocol: `new WebSocket(url, protocols)`.")
    expires_in: int = Field(description="Seconds.")


class Holder(BaseModel):
    """Whose a ticket or a connection is, and by what it was asked for: a session or an API key."""

    model_config = ConfigDict(frozen=True)

    user_id: UUID
    session_id: UUID | None = None
    api_key_id: UUID | None = None


class Health(BaseModel):
    """What clients are told of the parts that they depend on."""

    model_config = ConfigDict(frozen=True)

    postgresql: str = "ok"
    redis: str = "ok"
    worker: str = "ok"
