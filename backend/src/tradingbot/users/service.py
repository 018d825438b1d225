"""Users by their e-mail address."""

import re

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.users import repository
from tradingbot.users.models import User

_EMAIL = re.compile(r"^[^@\s\x00]{1,64}@[^@\s\x00]{1,189}$")


def normalise_email(email: str) -> str:
    """Gives the address in the form that is stored.

    Raises:
        ValueError: not an e-mail address.
    """
    if not _EMAIL.match(email):
        raise ValueError("not an e-mail address")
    return email.lower()


async def get_or_create(session: AsyncSession, email: str) -> User:
    """Gives the user with this address, making one (without a password) if there is none."""
    return await repository.get_or_create(session, normalise_email(email))
