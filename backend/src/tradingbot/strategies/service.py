"""Strategies: making, changing and deleting them, their webhook tokens and secrets."""

import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.conflicts import conflict
from tradingbot.core.errors import ConflictError, NotFoundError, UnprocessableError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.core.problems import validation_details
from tradingbot.core.settings import ServerSettings
from tradingbot.core.tokens import TokenKind, hash_token, new_token
from tradingbot.events.service import EventType, record
from tradingbot.positions.schemas import PositionOut
from tradingbot.strategies import repository
from tradingbot.strategies.models import Strategy
from tradingbot.strategies.schemas import StrategyChanges, StrategyIn, StrategyOut, StrategyPage
from tradingbot.strategies.symbols import overlap

_SECRET_BYTES = 24
# What says which markets of which account a strategy trades in.
_WHERE = ("exchange_account_id", "symbols", "is_active")


def webhook_url(settings: ServerSettings, token: str) -> str:
    """Gives the address that alerts are sent to."""
    return f"{settings.public_url}/api/v1/webhooks/tradingview/{token}"


async def make(
    session: AsyncSession, user_id: UUID, given: StrategyIn, secret_key: str
) -> tuple[Strategy, str]:
    """Stores a new strategy; its webhook token is given back here and never again.

    Raises:
        ConflictError: the user has one of this name, or another one is in its markets on a futures account.
        UnprocessableError: the exchange account is not the user's.
    """
    await _require_account(session, user_id, given.exchange_account_id)
    if given.is_active:
        await _require_own_markets(session, given.exchange_account_id, given.symbols)
    token = new_token(TokenKind.WEBHOOK)
    strategy = Strategy(
        user_id=user_id, webhook_token_hash=hash_token(token, secret_key), **given.model_dump()
    )
    with _unique_name(given.name):
        session.add(strategy)
        await session.flush()
    return strategy, token


async def get(
    session: AsyncSession, user_id: UUID, strategy_id: UUID, *, change: bool = False, remove: bool = False
) -> Strategy:
    """Gives the user's strategy; to `change` or `remove` it, locked.

    Raises:
        NotFoundError: the user has none of this id.
    """
    strategy = await repository.find(session, user_id, strategy_id, change=change, remove=remove)
    if strategy is None:
        raise NotFoundError("You have no such strategy.")
    return strategy


async def list_page(session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None) -> StrategyPage:
    """Gives one page of the user's own strategies."""
    rows = await repository.list_of_user(session, user_id, limit + 1, after)
    items = [StrategyOut.model_validate(row) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return StrategyPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


async def change(session: AsyncSession, strategy: Strategy, given: StrategyChanges) -> None:
    """Changes what is named.

    Raises:
        ConflictError: the name is taken, the account is to change under a position or an open order, or
            another strategy is in its markets on a futures account.
        UnprocessableError: the strategy would not be valid, or the exchange account is not the user's.
    """
    changes = given.named()
    current = {name: getattr(strategy, name) for name in StrategyIn.model_fields}
    try:
        StrategyIn.model_validate(current | changes)
    except ValidationError as error:
        errors = validation_details(error.errors(include_url=False, include_input=False))
        raise UnprocessableError("The strategy would not be valid.", errors=errors) from None
    account_id = changes.get("exchange_account_id", strategy.exchange_account_id)
    if account_id != strategy.exchange_account_id:
        await _require_account(session, strategy.user_id, account_id)
        if await repository.holds_something(session, strategy.id):
            raise ConflictError("Close the strategy's positions and orders before its account changes.")
        # It stays on the account before, and could not be sold on another.
        for position in await repository.drop_dust(session, strategy.id):
            shown = PositionOut.of(position).model_dump(mode="json")
            await record(session, strategy.user_id, EventType.POSITION, shown)
    after = current | changes
    if after["is_active"] and any(after[name] != current[name] for name in _WHERE):
        await _require_own_markets(session, account_id, after["symbols"], strategy.id)
    with _unique_name(given.name):
        for name, value in changes.items():
            setattr(strategy, name, value)
        await session.flush()


async def rotate_token(session: AsyncSession, strategy: Strategy, secret_key: str) -> str:
    """Gives the strategy a new webhook token; the old one is dead when the transaction is committed."""
    token = new_token(TokenKind.WEBHOOK)
    strategy.webhook_token_hash = hash_token(token, secret_key)
    await session.flush()
    return token


async def set_secret(session: AsyncSession, strategy: Strategy, secret: str | None, secret_key: str) -> str:
    """Sets what alerts of the strategy must carry as `secret`, made here if it is not given."""
    secret = secret or secrets.token_urlsafe(_SECRET_BYTES)
    strategy.secret_hash = hash_token(secret, secret_key)
    await session.flush()
    return secret


async def clear_secret(session: AsyncSession, strategy: Strategy) -> None:
    """Asks no secret of alerts any more; one that they carry must be WEBHOOK_SECRET."""
    strategy.secret_hash = None
    await session.flush()


async def remove(session: AsyncSession, user_id: UUID, strategy_id: UUID) -> None:
    """Deletes a strategy that never traded, with its signals.

    Raises:
        NotFoundError: the user has none of this id.
        ConflictError: it has orders, or the worker has still to do something for it.
    """
    await get(session, user_id, strategy_id, remove=True)
    if await repository.has_order(session, strategy_id):
        raise ConflictError("The strategy has orders, which stay with it; switch it off instead.")
    if await repository.has_work(session, strategy_id):
        raise ConflictError(
            "Signals of the strategy are still to be worked on; switch it off, and try again."
        )
    await repository.remove(session, strategy_id)


async def _require_own_markets(
    session: AsyncSession, account_id: UUID | None, symbols: Sequence[str], strategy_id: UUID | None = None
) -> None:
    """Refuse two strategies in one market of a futures account.

    The exchange has one position there for both: what one of them closes may have been opened by the other,
    and a close of what is not there any more it refuses for ever (-2022 at Binance).
    """
    if account_id is None:
        return
    for other in await repository.neighbours_on_futures(session, account_id, strategy_id):
        market = overlap(symbols, other.symbols)
        if market is not None:
            raise ConflictError(
                f"Strategy {other.name} trades {market} on this futures account, which has one position in a"
                " market for all: give each strategy its own account, or symbols that the other one has not."
            )


async def _require_account(session: AsyncSession, user_id: UUID, account_id: UUID | None) -> None:
    if account_id is not None and not await repository.keep_account(session, user_id, account_id):
        raise UnprocessableError("You have no such exchange account.")


def _unique_name(name: str | None) -> AbstractContextManager[None]:
    return conflict(repository.NAME_CONSTRAINT, f"You have a strategy named {name} already.")
