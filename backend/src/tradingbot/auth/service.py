"""Signing in, exchanging refresh tokens, and ending sessions."""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.auth import access_tokens, repository
from tradingbot.auth.access_tokens import Claims
from tradingbot.auth.client import Client
from tradingbot.auth.schemas import SessionOut, SessionPage, TokensOut
from tradingbot.core.context import Context
from tradingbot.core.errors import (
    ConflictError,
    NotFoundError,
    ProblemError,
    UnauthorizedError,
    UnavailableError,
    UnprocessableError,
)
from tradingbot.core.models import utc_now
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.core.passwords import Passwords
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, hash_token, is_well_formed, new_token
from tradingbot.users import repository as users
from tradingbot.users import service as user_service

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="tradingbot", ApiKey realm="tradingbot"'}

log = structlog.stdlib.get_logger("tradingbot.auth")

# Seconds: for so long after an exchange whoever comes second is taken for a tab or thread of the same client.
_SAME_MOMENT = 5.0


class Verified(NamedTuple):
    """Somebody who gave the password of this account; `new_hash` replaces a hash made at another cost."""

    user_id: UUID
    password_hash: str
    new_hash: str | None


def unauthorized(detail: str) -> UnauthorizedError:
    """The answer to missing or invalid credentials."""
    return UnauthorizedError(detail, headers=CHALLENGE)


async def verify_password(context: Context, email: str, password: str, client: Client) -> Verified | None:
    """Gives whose e-mail address and password these are; None if they are nobody's.

    An account that does not exist, is closed or has no password takes the same work as a wrong password.

    Raises:
        TooManyRequestsError: too many attempts for this account or from this address.
        UnavailableError: the database does not answer, or too many passwords are being checked.
    """
    await context.attempts.begin(email, client.address)
    try:
        async with context.database.single() as session:
            user = await users.find_by_email(session, email)
        # No connection is held while the hash is computed.
        stored = user.password_hash if user is not None and user.is_active else None
        verdict = await context.passwords.verify(password, stored)
    except UnavailableError:
        # Nothing was learnt of the password. Who tries again, as we ask for, is not to be locked out by that.
        await context.attempts.take_back(email, client.address)
        raise
    if user is None or stored is None or not verdict.right:
        return None
    await context.attempts.succeeded(email, client.address)
    return Verified(user.id, stored, verdict.new_hash)


def wrong_credentials() -> UnauthorizedError:
    """The answer to a sign-in that fails: not telling whether the account exists."""
    return unauthorized("The e-mail address or the password is wrong.")


async def open_session(
    session: AsyncSession, settings: Settings, verified: Verified, client: Client
) -> TokensOut | None:
    """Starts a session; None if the stored hash is another, or the account closed, since it was verified."""
    if await users.lock_with_password(session, verified.user_id, verified.password_hash) is None:
        return None
    if verified.new_hash is not None:
        await users.change_password(session, verified.user_id, verified.password_hash, verified.new_hash)
    now = utc_now()
    await repository.delete_expired(session, verified.user_id, now)
    token = new_token(TokenKind.REFRESH)
    expires_at = now + timedelta(days=settings.session_days)
    values = {
        "user_id": verified.user_id,
        "token_hash": _hash(settings, token),
        "expires_at": expires_at,
        "last_used_at": now,
        **client._asdict(),
    }
    session_id = await repository.add(session, values)
    return _tokens(settings, repository.SessionRef(session_id, verified.user_id, expires_at), token)


async def refresh(
    session: AsyncSession, settings: Settings, token: str, client: Client
) -> TokensOut | ProblemError:
    """Exchanges a refresh token for new tokens, once.

    A problem is given back, not raised: what was found out on the way is to be committed. A token that had
    been exchanged before is a copy in wrong hands, or its owner's who lost the race against them: the session
    is revoked. Not so if another request has exchanged it within the last seconds: then this one just came
    second. It gets no token either.
    """
    invalid = unauthorized("The refresh token is not valid, or its session is over.")
    if not is_well_formed(token, TokenKind.REFRESH):
        return invalid
    now, old_hash, new = utc_now(), _hash(settings, token), new_token(TokenKind.REFRESH)
    found = await repository.find_by_token(session, old_hash, now)
    second = ConflictError("Another request exchanges this refresh token: use the tokens that it gets.")
    if found is None:
        if await repository.was_retired_within(session, old_hash, _SAME_MOMENT):
            return second
        revoked = await repository.revoke_by_retired_token(session, old_hash, now)
        if revoked is not None:
            log.warning("a used refresh token was shown again: session revoked", session=str(revoked))
        return invalid
    values = {"token_hash": _hash(settings, new), "last_used_at": now, **client._asdict()}
    if not await repository.rotate(session, found.id, old_hash, values):
        return second
    return _tokens(settings, found, new)


async def change_password(
    session: AsyncSession, verified: Verified, new_hash: str, session_id: UUID | None
) -> None:
    """Stores another password's hash, and ends the user's other sessions.

    Raises:
        ConflictError: it has been changed meanwhile.
    """
    if not await users.change_password(session, verified.user_id, verified.password_hash, new_hash):
        raise ConflictError("The password has been changed meanwhile.")
    await repository.revoke_others(session, verified.user_id, session_id, utc_now())


async def list_page(
    session: AsyncSession, user_id: UUID, current: UUID | None, limit: int, after: Cursor | None
) -> SessionPage:
    """Gives one page of the user's live sessions."""
    rows = await repository.list_of_user(session, user_id, limit + 1, after, utc_now())
    items = [SessionOut.model_validate(row) for row in rows[:limit]]
    for item in items:
        item.current = item.id == current
    last = items[-1] if len(rows) > limit else None
    return SessionPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


async def end_session(session: AsyncSession, user_id: UUID, session_id: UUID) -> None:
    """Revokes one of the user's sessions.

    Raises:
        NotFoundError: the user has no such live session.
    """
    if not await repository.revoke(session, user_id, session_id, utc_now()):
        raise NotFoundError("There is no such session.")


async def require_good_password(passwords: Passwords, password: str, email: str, field: str) -> None:
    """Sees whether a password may be used.

    Raises:
        UnprocessableError: saying at `field` why not.
        UnavailableError: too many are waiting already.
    """
    try:
        await passwords.run(lambda: user_service.check_password(password, email))
    except ValueError as error:
        raise not_valid(field, str(error)) from None


def not_valid(field: str, message: str) -> UnprocessableError:
    """The answer to a value that cannot be used, in the form of all validation errors."""
    return UnprocessableError("The request is not valid.", errors=[{"field": field, "message": message}])


def _tokens(settings: Settings, of: repository.SessionRef, refresh_token: str) -> TokensOut:
    return TokensOut(
        access_token=access_tokens.issue(settings, Claims(of.user_id, of.id)),
        expires_in=settings.access_token_seconds,
        refresh_token=refresh_token,
        session_id=of.id,
        session_expires_at=of.expires_at,
    )


def _hash(settings: Settings, token: str) -> str:
    return hash_token(token, settings.secret_key.get_secret_value())
