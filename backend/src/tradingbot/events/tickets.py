"""One-time tickets for the WebSocket: a browser cannot send headers with it, and no credential is in a URL.

Redis keeps the keyed hash of a ticket for some seconds; GETDEL hands it out to one taker only.
"""

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tradingbot.auth.principal import Principal
from tradingbot.core.errors import UnauthorizedError, UnavailableError
from tradingbot.core.redis import PREFIX
from tradingbot.core.tokens import TokenKind, hash_token, is_well_formed, new_token
from tradingbot.events.schemas import Holder

log = structlog.stdlib.get_logger("tradingbot.events")


async def issue(redis: Redis, principal: Principal, secret_key: str, seconds: int) -> str:
    """Makes a ticket for the caller that is valid for `seconds`.

    Raises:
        UnavailableError: Redis does not answer.
    """
    ticket = new_token(TokenKind.TICKET)
    holder = Holder(
        user_id=principal.user_id, session_id=principal.session_id, api_key_id=principal.api_key_id
    )
    try:
        await redis.set(_key(ticket, secret_key), holder.model_dump_json(), ex=seconds)
    except (RedisError, OSError) as error:
        raise _unavailable(error) from None
    return ticket


async def redeem(redis: Redis, ticket: str, secret_key: str) -> Holder:
    """Takes the ticket: nobody can take it again.

    Raises:
        UnauthorizedError: none of ours, expired, or used.
        UnavailableError: Redis does not answer.
    """
    if not is_well_formed(ticket, TokenKind.TICKET):
        raise unauthorized()
    try:
        stored = await redis.getdel(_key(ticket, secret_key))
    except (RedisError, OSError) as error:
        raise _unavailable(error) from None
    if stored is None:
        raise unauthorized()
    return Holder.model_validate_json(stored)


def unauthorized() -> UnauthorizedError:
    """The answer to a handshake without a valid ticket."""
    return UnauthorizedError(
        "The handshake needs Sec-WebSocket-Protocol: tradingbot.v1, ticket.<ticket>,"
        " with a ticket of POST /api/v1/ws/tickets that has not been used.",
        headers={"WWW-Authenticate": 'Ticket realm="tradingbot"'},
    )


def _key(ticket: str, secret_key: str) -> str:
    return f"{PREFIX}ticket:{hash_token(ticket, secret_key)}"


def _unavailable(error: Exception) -> UnavailableError:
    log.warning("no tickets without Redis", reason=type(error).__name__)
    return UnavailableError("Redis, which keeps the tickets, does not answer. Meanwhile: GET /api/v1/events.")
