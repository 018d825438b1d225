"""Endpoints under /exchange-accounts."""

from uuid import UUID

from fastapi import APIRouter, status

from tradingbot.auth.dependencies import Account, Reader
from tradingbot.core.context import ContextDep
from tradingbot.core.crypto import Envelopes
from tradingbot.core.pagination import decode_cursor
from tradingbot.core.problems import documented
from tradingbot.core.queries import CursorText, Limit
from tradingbot.exchanges import service
from tradingbot.exchanges.schemas import AccountChanges, AccountIn, AccountOut, AccountPage
from tradingbot.exchanges.verification import verify

router = APIRouter(prefix="/exchange-accounts", tags=["exchange accounts"])


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(401, 403, 409, 422, 503))
async def create_account(context: ContextDep, principal: Account, given: AccountIn) -> AccountOut:
    """Makes an account. The exchange is shown its credentials first: those that may withdraw are refused."""
    account = service.make(principal.user_id, given, context.settings, Envelopes.of(context.settings))
    if account.has_credentials or account.live_price:
        async with context.database.transaction() as session:
            await service.require_free_name(session, principal.user_id, given.name)
        await verify(account, context)
    async with context.database.transaction() as session:
        return await service.store(session, account)


@router.get("", responses=documented(401, 403, 422, 503))
async def list_accounts(
    context: ContextDep,
    reader: Reader,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> AccountPage:
    """Lists your accounts, the newest first."""
    after = decode_cursor(cursor) if cursor is not None else None
    async with context.database.transaction() as session:
        return await service.list_page(session, reader.user_id, limit, after)


@router.get("/{account_id}", responses=documented(401, 403, 404, 422, 503))
async def get_account(context: ContextDep, reader: Reader, account_id: UUID) -> AccountOut:
    """Gives one of your accounts."""
    async with context.database.transaction() as session:
        return AccountOut.model_validate(await service.get(session, reader.user_id, account_id))


@router.patch("/{account_id}", responses=documented(401, 403, 404, 409, 422, 503))
async def change_account(
    context: ContextDep, principal: Account, account_id: UUID, given: AccountChanges
) -> AccountOut:
    """Changes what is named. New credentials are shown to the exchange first."""
    async with context.database.transaction() as session:
        account = await service.get(session, principal.user_id, account_id)
    checked = service.with_credentials(account, given, context.settings, Envelopes.of(context.settings))
    if checked is not None:
        await verify(checked, context)
    async with context.database.transaction() as session:
        account = await service.get(session, principal.user_id, account_id, lock=True)
        return await service.change(session, account, given, checked)


@router.delete(
    "/{account_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=documented(401, 403, 404, 409, 422, 503),
)
async def delete_account(context: ContextDep, principal: Account, account_id: UUID) -> None:
    """Deletes an account that no strategy uses and that no order was made on."""
    async with context.database.transaction() as session:
        await service.remove(session, principal.user_id, account_id)
