"""Queries on sessions and their refresh tokens."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.auth.models import RetiredRefreshToken, Session
from tradingbot.core.pagination import Cursor
from tradingbot.users.models import User


class SessionRef(NamedTuple):
    """A session and whose it is."""

    id: UUID
    user_id: UUID
    expires_at: datetime


def _live(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Session.revoked_at.is_(None), Session.expires_at > now


async def is_admin(session: AsyncSession, session_id: UUID, user_id: UUID, now: datetime) -> bool | None:
    """Tells whether the active user of this live session is an administrator; None if it is not one."""
    statement = (
        select(User.is_admin)
        .join(Session, Session.user_id == User.id)
        .where(Session.id == session_id, User.id == user_id, User.is_active, *_live(now))
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def add(session: AsyncSession, values: dict[str, Any]) -> UUID:
    """Stores a session."""
    return (await session.execute(insert(Session).values(values).returning(Session.id))).scalar_one()


async def delete_expired(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    """Removes the user's sessions that are over, and with them what they retired."""
    await session.execute(delete(Session).where(Session.user_id == user_id, Session.expires_at <= now))


async def find_by_token(session: AsyncSession, token_hash: str, now: datetime) -> SessionRef | None:
    """Gives the live session of an active user of which this is the current refresh token."""
    statement = (
        select(Session.id, Session.user_id, Session.expires_at)
        .join(User, User.id == Session.user_id)
        .where(Session.token_hash == token_hash, User.is_active, *_live(now))
    )
    row = (await session.execute(statement)).one_or_none()
    return SessionRef(*row) if row else None


async def rotate(session: AsyncSession, session_id: UUID, old_hash: str, values: dict[str, Any]) -> bool:
    """Puts another refresh token in the place of the current one, if that is (still) `old_hash`."""
    statement = (
        update(Session)
        .where(Session.id == session_id, Session.token_hash == old_hash, Session.revoked_at.is_(None))
        .values(values)
        .returning(Session.id)
    )
    if (await session.execute(statement)).scalar_one_or_none() is None:
        return False
    await session.execute(insert(RetiredRefreshToken).values(token_hash=old_hash, session_id=session_id))
    return True


async def was_retired_within(session: AsyncSession, token_hash: str, seconds: float) -> bool:
    """Return whether a live session exchanged this refresh token within the last `seconds`."""
    statement = (
        select(RetiredRefreshToken.session_id)
        .join(Session, Session.id == RetiredRefreshToken.session_id)
        .where(
            RetiredRefreshToken.token_hash == token_hash,
            RetiredRefreshToken.retired_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds),
            Session.revoked_at.is_(None),
        )
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def revoke_by_retired_token(session: AsyncSession, token_hash: str, now: datetime) -> UUID | None:
    """Ends the session that this refresh token once belonged to; gives it if it was live until now."""
    retired = select(RetiredRefreshToken.session_id).where(RetiredRefreshToken.token_hash == token_hash)
    statement = (
        update(Session)
        .where(Session.id.in_(retired), Session.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(Session.id)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def revoke(session: AsyncSession, user_id: UUID, session_id: UUID | None, now: datetime) -> bool:
    """Ends one of the user's live sessions; tells whether there was one."""
    statement = (
        update(Session)
        .where(Session.id == session_id, Session.user_id == user_id, *_live(now))
        .values(revoked_at=now)
        .returning(Session.id)
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def revoke_others(session: AsyncSession, user_id: UUID, kept: UUID | None, now: datetime) -> None:
    """Ends all of the user's sessions but `kept`."""
    statement = update(Session).where(Session.user_id == user_id, Session.revoked_at.is_(None))
    if kept is not None:
        statement = statement.where(Session.id != kept)
    await session.execute(statement.values(revoked_at=now))


async def list_of_user(
    session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None, now: datetime
) -> Sequence[Session]:
    """Gives the user's live sessions after the cursor, the newest first."""
    statement = select(Session).where(Session.user_id == user_id, *_live(now))
    if after is not None:
        statement = statement.where(tuple_(Session.created_at, Session.id) < (after.at, after.id))
    statement = statement.order_by(Session.created_at.desc(), Session.id.desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()
