"""Queries on users."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.users.models import User


async def get_or_create(session: AsyncSession, email: str) -> User:
    """Gives the user with this (lower-case) address, making one if there is none."""
    await session.execute(insert(User).values(email=email).on_conflict_do_nothing())
    return (await session.execute(select(User).where(User.email == email))).scalar_one()
