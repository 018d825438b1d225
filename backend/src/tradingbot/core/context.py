"""What the endpoints of one worker share."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from tradingbot.auth.lockout import Attempts
from tradingbot.core.database import Database
from tradingbot.core.passwords import Passwords
from tradingbot.core.settings import Settings
from tradingbot.events.hub import EventHub
from tradingbot.events.publisher import EventPublisher
from tradingbot.webhooks.intake import Intake
from tradingbot.webhooks.rejections import Rejections


@dataclass(frozen=True)
class Context:
    """Made when the application starts, closed when it stops."""

    settings: Settings
    database: Database
    redis: Redis
    publisher: EventPublisher
    hub: EventHub
    intake: Intake
    rejections: Rejections
    passwords: Passwords
    attempts: Attempts


def get_context(connection: HTTPConnection) -> Context:
    """Gives the context of the application that serves this request."""
    context = connection.app.state.context
    if not isinstance(context, Context):
        raise TypeError("the application has not started")
    return context


ContextDep = Annotated[Context, Depends(get_context)]
