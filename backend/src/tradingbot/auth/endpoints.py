"""Endpoints under /auth."""

from uuid import UUID

from fastapi import APIRouter, Depends, Response

from tradingbot.auth import repository, service
from tradingbot.auth.client import ClientDep
from tradingbot.auth.dependencies import Account, Reader
from tradingbot.auth.schemas import (
    LoginIn,
    MeOut,
    PasswordIn,
    RefreshIn,
    RegisterIn,
    RegisterOut,
    SessionPage,
    TokensOut,
)
from tradingbot.core.context import ContextDep
from tradingbot.core.errors import ForbiddenError, ProblemError
from tradingbot.core.models import utc_now
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit
from tradingbot.users import repository as users

router = APIRouter(prefix="/auth", tags=["auth"])


def _never_cached(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


@router.post("/register", status_code=202, responses=documented(403, 422, 429, 503))
async def register(body: RegisterIn, context: ContextDep, client: ClientDep) -> RegisterOut:
    """Makes an account, where REGISTRATION_ENABLED says so. Whether the address was free is not told."""
    if not context.settings.registration_enabled:
        raise ForbiddenError("Registration is off here: ask the operator for an account.")
    password = body.password.get_secret_value()
    await context.attempts.begin_registration(client.address)
    await service.require_good_password(context.passwords, password, body.email, "body.password")
    password_hash = await context.passwords.hash(password)
    async with context.database.transaction() as session:
        await users.insert_once(session, body.email, password_hash)
    return RegisterOut()


@router.post("/login", responses=documented(401, 422, 429, 503), dependencies=[Depends(_never_cached)])
async def login(body: LoginIn, context: ContextDep, client: ClientDep) -> TokensOut:
    """Signs in: starts a session. Who fails too often has to wait: 429 with Retry-After."""
    # Twice, as a sign-in at the same moment may store another hash of the same password.
    for _ in range(2):
        password = body.password.get_secret_value()
        verified = await service.verify_password(context, body.email, password, client)
        if verified is None:
            break
        async with context.database.transaction() as session:
            tokens = await service.open_session(session, context.settings, verified, client)
        if tokens is not None:
            return tokens
    raise service.wrong_credentials()


@router.post("/refresh", responses=documented(401, 409, 422, 503), dependencies=[Depends(_never_cached)])
async def refresh(body: RefreshIn, context: ContextDep, client: ClientDep) -> TokensOut:
    """Exchanges the refresh token for new tokens, once: shown again it ends the session.

    Of two exchanges at the same moment one succeeds and the other gets 409.
    """
    async with context.database.transaction() as session:
        token = body.refresh_token.get_secret_value()
        outcome = await service.refresh(session, context.settings, token, client)
    if isinstance(outcome, ProblemError):
        raise outcome
    return outcome


@router.post("/logout", status_code=204, responses=documented(401, 403, 503))
async def logout(context: ContextDep, account: Account) -> None:
    """Ends the session that the token names: its tokens are refused at once."""
    async with context.database.transaction() as session:
        await repository.revoke(session, account.user_id, account.session_id, utc_now())


@router.post("/password", status_code=204, responses=documented(401, 403, 409, 422, 429, 503))
async def change_password(body: PasswordIn, context: ContextDep, account: Account, client: ClientDep) -> None:
    """Changes the password and ends the other sessions. API keys stay as they are.

    A wrong current password counts as an attempt to sign in.
    """
    new = body.new_password.get_secret_value()
    async with context.database.single() as session:
        user = await users.get(session, account.user_id)
    current = body.current_password.get_secret_value()
    verified = await service.verify_password(context, user.email, current, client)
    if verified is None:
        raise service.not_valid("body.current_password", "the current password is wrong")
    await service.require_good_password(context.passwords, new, user.email, "body.new_password")
    new_hash = await context.passwords.hash(new)
    async with context.database.transaction() as session:
        await service.change_password(session, verified, new_hash, account.session_id)


@router.get("/me", responses=documented(401, 403, 503))
async def me(context: ContextDep, reader: Reader) -> MeOut:
    """Tells who you are, and what your credentials allow."""
    async with context.database.single() as session:
        user = await users.get(session, reader.user_id)
    return MeOut(
        id=user.id,
        email=user.email,
        is_admin=user.is_admin,
        created_at=user.created_at,
        scopes=sorted(reader.scopes),
        session_id=reader.session_id,
    )


@router.get("/sessions", responses=documented(401, 403, 422, 503))
async def list_sessions(
    context: ContextDep,
    account: Account,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> SessionPage:
    """Lists your live sessions, the newest first."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.single() as session:
        return await service.list_page(session, account.user_id, account.session_id, limit, after)


@router.delete("/sessions", status_code=204, responses=documented(401, 403, 503))
async def end_other_sessions(context: ContextDep, account: Account) -> None:
    """Ends all your sessions but this one."""
    async with context.database.transaction() as session:
        await repository.revoke_others(session, account.user_id, account.session_id, utc_now())


@router.delete("/sessions/{session_id}", status_code=204, responses=documented(401, 403, 404, 422, 503))
async def end_session(session_id: UUID, context: ContextDep, account: Account) -> None:
    """Ends one of your sessions: its tokens are refused at once."""
    async with context.database.transaction() as session:
        await service.end_session(session, account.user_id, session_id)
