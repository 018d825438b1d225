"""Making API keys and finding whose they are."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.api_keys import repository
from tradingbot.api_keys.models import ApiKey
from tradingbot.core.errors import UnauthorizedError
from tradingbot.core.models import utc_now
from tradingbot.core.tokens import DISPLAY_LENGTH, TokenKind, hash_token, is_well_formed, new_token
from tradingbot.users.models import User

HEADER = "X-API-Key"


async def create(session: AsyncSession, user: User, name: str, secret_key: str) -> str:
    """Stores a new key of `user`; the key itself is given back here and never again."""
    key = new_token(TokenKind.API_KEY)
    session.add(
        ApiKey(user_id=user.id, name=name, prefix=key[:DISPLAY_LENGTH], key_hash=hash_token(key, secret_key))
    )
    await session.flush()
    return key


async def authenticate(session: AsyncSession, key: str, secret_key: str) -> UUID:
    """Gives the id of the user to whom `key` belongs.

    Raises:
        UnauthorizedError: not a key of ours, expired, or revoked.
    """
    if is_well_formed(key, TokenKind.API_KEY):
        owner = await repository.find_owner(session, hash_token(key, secret_key), utc_now())
        if owner is not None:
            return owner
    raise unauthorized()


def unauthorized() -> UnauthorizedError:
    """The answer to a missing or invalid key."""
    return UnauthorizedError(
        "A valid API key is needed in the header X-API-Key.",
        headers={"WWW-Authenticate": 'ApiKey realm="tradingbot"'},
    )
