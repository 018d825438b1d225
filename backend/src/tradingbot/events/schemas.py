"""Live events: what is published, and what a WebSocket client gets."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel

from tradingbot.core.redis import PREFIX
from tradingbot.signals.schemas import SignalOut

CHANNEL = f"{PREFIX}events"


class Event(BaseModel):
    """Something that happened, for one user. The client gets `type` and `data`."""

    user_id: UUID
    sequence: int = 0
    type: str
    data: dict[str, Any]

    def for_client(self) -> str:
        """The message as JSON."""
        return self.model_dump_json(include={"type", "data"})


def signal_event(user_id: UUID, signal: SignalOut) -> Event:
    """A signal was stored."""
    return Event(user_id=user_id, type="signal", data=signal.model_dump(mode="json"))
