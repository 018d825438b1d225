"""Queries on users."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.users.models import User


async def get_or_create(session: AsyncSession, email: str) -> User:
    """Gives the user with this (lower-case) address, making one if there is none."""
    await session.execute(insert(User).values(email=email).on_conflict_do_nothing())
    return (await session.execute(select(User).where(User.email == email))).scalar_one()


async def insert_once(
    session: AsyncSession, email: str, password_hash: str, *, is_admin: bool = False
) -> UUID | None:
    """Stores a user; gives None if there is one with this address."""
    values = {"email": email, "password_hash": password_hash, "is_admin": is_admin}
    statement = insert(User).values(values).on_conflict_do_nothing().returning(User.id)
    return (await session.execute(statement)).scalar_one_or_none()


async def get(session: AsyncSession, user_id: UUID) -> User:
    """Gives the user with this id, who is there: they have been authenticated."""
    return (await session.execute(select(User).where(User.id == user_id))).scalar_one()


async def find_by_email(session: AsyncSession, email: str) -> User | None:
    """Gives the user with this (lower-case) address."""
    return (await session.execute(select(User).where(User.email == email))).scalar_one_or_none()


async def lock_with_password(session: AsyncSession, user_id: UUID, password_hash: str) -> User | None:
    """Gives the active user if this is their password's hash still, and keeps it so until the commit.

    One at a time: two who shared the lock could not both store another hash.
    """
    statement = select(User).where(User.id == user_id, User.password_hash == password_hash, User.is_active)
    return (await session.execute(statement.with_for_update(key_share=True))).scalar_one_or_none()


async def change(session: AsyncSession, email: str, **values: Any) -> UUID | None:
    """Sets columns of the user with this address; gives None if there is none."""
    statement = update(User).where(User.email == email).values(values).returning(User.id)
    return (await session.execute(statement)).scalar_one_or_none()


async def change_password(session: AsyncSession, user_id: UUID, old_hash: str, new_hash: str) -> bool:
    """Stores another hash, if the one now stored is `old_hash`; tells whether it was."""
    statement = (
        update(User)
        .where(User.id == user_id, User.password_hash == old_hash)
        .values(password_hash=new_hash)
        .returning(User.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def list_all(session: AsyncSession) -> Sequence[User]:
    """Gives all users by their address."""
    return (await session.execute(select(User).order_by(User.email))).scalars().all()
