"""Exchange accounts: whose they are, and what they may be used for.

New credentials are shown to the exchange (`verification`) after `make` or `with_credentials` and before
`store` or `change`: outside of any transaction.
"""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.conflicts import conflict
from tradingbot.core.crypto import Envelopes
from tradingbot.core.errors import ConflictError, NotFoundError, UnprocessableError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.core.settings import TradingSettings
from tradingbot.exchanges import repository
from tradingbot.exchanges.credentials import given_credentials, seal_credentials
from tradingbot.exchanges.models import PAPER, ExchangeAccount, Market, Mode
from tradingbot.exchanges.schemas import PAPER_ONLY, AccountChanges, AccountIn, AccountOut, AccountPage

_NAME_TAKEN = "You have an exchange account of this name."
_CREDENTIAL_COLUMNS = ("key_envelope", "secret_envelope", "passphrase_envelope", "key_hint")


class LiveForbiddenError(UnprocessableError):
    """The account trades real money, and BINANCE_TESTNET forbids that."""


def check_mode(account: ExchangeAccount, settings: TradingSettings) -> None:
    """Refuses real money while BINANCE_TESTNET is on: when an account is made, and again before each order.

    Raises:
        LiveForbiddenError: the account is a live one.
    """
    if settings.binance_testnet and account.mode == Mode.LIVE:
        raise LiveForbiddenError(
            "Live accounts are refused while BINANCE_TESTNET is on; BINANCE_TESTNET=false allows real money."
        )


async def default_account(session: AsyncSession, user_id: UUID) -> ExchangeAccount:
    """Return the user's default account, making it if there is none: a paper one, of futures.

    Strategies without an account trade on it: alerts are to work as they come, those that go short too.
    """
    for name in ("Paper", f"Paper {uuid4().hex[:8]}"):
        account = await repository.find_default(session, user_id)
        if account is not None:
            # Earlier versions made it of spot, which meant nothing on paper: there were shorts on it.
            account.market = Market.FUTURE
            return account
        await repository.insert_default(session, user_id, name)
    account = await repository.find_default(session, user_id)
    if account is None:
        raise RuntimeError("the default account was made and cannot be seen")
    return account


async def get(
    session: AsyncSession, user_id: UUID, account_id: UUID, *, lock: bool = False
) -> ExchangeAccount:
    """Gives the user's account; with `lock` nobody else changes or uses it until the transaction ends.

    Raises:
        NotFoundError: the user has none of this id.
    """
    account = await repository.find(session, user_id, account_id, lock=lock)
    if account is None:
        raise NotFoundError("You have no such exchange account.")
    return account


async def list_page(session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None) -> AccountPage:
    """Gives one page of the user's own accounts."""
    rows = await repository.list_of_user(session, user_id, limit + 1, after)
    items = [AccountOut.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return AccountPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


def make(user_id: UUID, given: AccountIn, settings: TradingSettings, envelopes: Envelopes) -> ExchangeAccount:
    """Gives an account that is not stored yet.

    Raises:
        LiveForbiddenError: it is a live one.
        UnprocessableError: the mode has to be said.
    """
    account = ExchangeAccount(
        id=uuid4(),
        user_id=user_id,
        name=given.name,
        exchange=given.exchange,
        market=given.market,
        mode=_mode(given, settings),
        fee_rate=given.fee_rate,
        slippage_rate=given.slippage_rate,
        starting_equity=given.starting_equity,
        live_price=given.live_price,
    )
    check_mode(account, settings)
    credentials = given_credentials(given)
    if credentials is not None:
        seal_credentials(account, credentials, envelopes)
    return account


async def require_free_name(session: AsyncSession, user_id: UUID, name: str) -> None:
    """Spares the exchange a question whose answer would not matter.

    Raises:
        ConflictError: the user has an account of this name.
    """
    if await repository.find_by_name(session, user_id, name) is not None:
        raise ConflictError(_NAME_TAKEN)


async def store(session: AsyncSession, account: ExchangeAccount) -> AccountOut:
    """Stores a new account.

    Raises:
        ConflictError: the user has one of this name.
    """
    with conflict(repository.NAME_CONSTRAINT, _NAME_TAKEN):
        session.add(account)
        await session.flush()
    return AccountOut.model_validate(account)


def with_credentials(
    account: ExchangeAccount, given: AccountChanges, settings: TradingSettings, envelopes: Envelopes
) -> ExchangeAccount | None:
    """Gives a copy of the account with the new credentials, to ask the exchange with; None if there are none.

    Raises:
        UnprocessableError: what is to change does not fit the account.
        LiveForbiddenError: the account is a live one.
    """
    credentials = given_credentials(given)
    if credentials is None:
        return None
    if account.mode == Mode.PAPER:
        raise UnprocessableError("A paper account has no credentials.")
    check_mode(account, settings)
    columns = ExchangeAccount.__table__.columns.keys()
    copy = ExchangeAccount(**{name: getattr(account, name) for name in columns})
    seal_credentials(copy, credentials, envelopes)
    return copy


async def change(
    session: AsyncSession,
    account: ExchangeAccount,
    given: AccountChanges,
    checked: ExchangeAccount | None,
) -> AccountOut:
    """Changes what is named; `checked` has the new credentials, which the exchange has accepted.

    Raises:
        ConflictError: the user has another account of this name.
        UnprocessableError: what is to change does not fit the account.
    """
    changes = _settings_of(account, given)
    if checked is not None:
        changes |= {name: getattr(checked, name) for name in _CREDENTIAL_COLUMNS}
    with conflict(repository.NAME_CONSTRAINT, _NAME_TAKEN):
        for name, value in changes.items():
            setattr(account, name, value)
        await session.flush()
    return AccountOut.model_validate(account)


async def remove(session: AsyncSession, user_id: UUID, account_id: UUID) -> None:
    """Deletes an account on which nothing was ever traded.

    Raises:
        NotFoundError: the user has none of this id.
        ConflictError: it is in use, or is the default account.
    """
    account = await get(session, user_id, account_id, lock=True)
    if account.is_default:
        raise ConflictError("Strategies without an account trade on this one.")
    if await repository.has_strategy(session, account_id):
        raise ConflictError("A strategy trades on this account; give it another one first.")
    if await repository.has_order(session, account_id):
        raise ConflictError("Orders were made on this account; it stays with them.")
    await repository.remove(session, account_id)


def _mode(given: AccountIn, settings: TradingSettings) -> Mode:
    if given.mode is not None:
        return given.mode
    if given.exchange == PAPER:
        return Mode.PAPER
    if settings.binance_testnet:
        return Mode.TESTNET
    raise UnprocessableError(
        "Say the mode: without BINANCE_TESTNET, nothing else tells whether money is real."
    )


def _settings_of(account: ExchangeAccount, given: AccountChanges) -> dict[str, Any]:
    changes = {name: value for name, value in given.named().items() if name in ("name", *PAPER_ONLY)}
    if account.mode != Mode.PAPER and changes.keys() & set(PAPER_ONLY):
        raise UnprocessableError(f"{', '.join(PAPER_ONLY)} are those of paper accounts.")
    if account.exchange == PAPER and changes.get("live_price"):
        raise UnprocessableError("The account has no exchange whose price could be asked for.")
    return changes
