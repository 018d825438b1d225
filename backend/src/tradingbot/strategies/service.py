"""Making strategies."""

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.tokens import TokenKind, hash_token, new_token
from tradingbot.strategies import repository
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User


class DuplicateStrategyError(Exception):
    """The user has a strategy of this name."""


async def create(session: AsyncSession, user: User, name: str, secret_key: str) -> str:
    """Stores a new strategy; its webhook token is given back here and never again.

    Raises:
        DuplicateStrategyError: the user has one of this name.
    """
    if await repository.exists(session, user.id, name):
        raise DuplicateStrategyError(name)
    token = new_token(TokenKind.WEBHOOK)
    session.add(Strategy(user_id=user.id, name=name, webhook_token_hash=hash_token(token, secret_key)))
    await session.flush()
    return token
