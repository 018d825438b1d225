"""What accounts hold at their exchange, and whether the book says so.

The book follows the exchange: a difference is never traded away. While a futures account holds something
else than the strategies on it think, or a spot account less, nothing is opened there, and exits take what is
really there, until it agrees again or a person puts the book right (`correcting`).

On spot an account has one balance of an asset, whatever markets it was bought in, and its owner's own coins
are in it, too: what is there beyond the book is the owner's, and may come and go.
"""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.core.models import utc_now
from tradingbot.core.pagination import Cursor
from tradingbot.core.symbols import in_market, market_of
from tradingbot.exchanges.models import ExchangeAccount, Market
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.strategies.models import Strategy

_ZERO = Decimal(0)


def drift(kind: str, theirs: Decimal, booked: Decimal) -> Decimal:
    """Return what an account has more (less: negative) than is booked; more on spot is its owner's own."""
    difference = ARITHMETIC.subtract(theirs, booked)
    return min(_ZERO, difference) if kind == Market.SPOT else difference


def differs(difference: Decimal, dust: Decimal) -> bool:
    """Return whether so much too much or too little is more than dust."""
    return difference != 0 and abs(difference) >= dust


async def note(
    session: AsyncSession,
    account: ExchangeAccount,
    market: str,
    asset: str,
    theirs: Decimal,
    booked: Decimal,
) -> bool:
    """Store what the account holds; return whether it has just begun to differ from what is booked.

    `booked` is of all markets whose holding is counted in the same `asset`: see `Exchange.asset`.
    """
    holding = await find(session, account.id, market, lock=True)
    if holding is None:
        values = {
            "exchange_account_id": account.id,
            "market": market,
            "asset": asset,
            "quantity": theirs,
            "booked": booked,
        }
        await session.execute(insert(AccountHolding).values(values).on_conflict_do_nothing())
        holding = await find(session, account.id, market, lock=True)
        if holding is None:
            # The account was deleted.
            return False
    before = holding.differs_since
    holding.asset, holding.quantity, holding.booked = asset, theirs, booked
    await judge(session, account, holding)
    return before is None and holding.differs_since is not None


async def judge(session: AsyncSession, account: ExchangeAccount, holding: AccountHolding) -> None:
    """Note since when, and whether at all, a locked row differs."""
    dust = (
        select(func.max(Position.min_quantity))
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.exchange_account_id == account.id, in_market(Position.symbol, holding.market))
    )
    least = (await session.execute(dust)).scalar_one() or _ZERO
    if not differs(drift(account.market, holding.quantity, holding.booked), least):
        holding.differs_since = None
    elif holding.differs_since is None:
        holding.differs_since = utc_now()
    await session.flush()


async def find(
    session: AsyncSession, account_id: UUID, symbol: str, *, lock: bool = False
) -> AccountHolding | None:
    """Return what the account was last seen to hold in the market; None if nobody has looked."""
    statement = select(AccountHolding).where(
        AccountHolding.exchange_account_id == account_id, AccountHolding.market == market_of(symbol)
    )
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalar_one_or_none()


async def with_market(session: AsyncSession, account_id: UUID, symbol: str) -> Sequence[AccountHolding]:
    """Return the account's rows of all markets whose holding is counted as that of the symbol, locked."""
    asset = select(AccountHolding.asset).where(
        AccountHolding.exchange_account_id == account_id, AccountHolding.market == market_of(symbol)
    )
    statement = (
        select(AccountHolding)
        .where(
            AccountHolding.exchange_account_id == account_id,
            AccountHolding.asset == asset.scalar_subquery(),
        )
        # As those who compare lock them: nobody waits for each other.
        .order_by(AccountHolding.market)
    )
    statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalars().all()


async def booked(session: AsyncSession, account_id: UUID, symbol: str) -> Decimal:
    """Return what the strategies on the account hold in the market, by the book."""
    statement = (
        select(func.sum(Position.quantity))
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.exchange_account_id == account_id, in_market(Position.symbol, symbol))
    )
    return (await session.execute(statement)).scalar_one() or _ZERO


async def differing(
    session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None = None
) -> Sequence[AccountHolding]:
    """Return where the user's accounts differ from the book, the newest first, after the cursor."""
    statement = (
        select(AccountHolding)
        .join(ExchangeAccount, ExchangeAccount.id == AccountHolding.exchange_account_id)
        .where(ExchangeAccount.user_id == user_id, AccountHolding.differs_since.is_not(None))
        .order_by(AccountHolding.differs_since.desc(), AccountHolding.id.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(
            tuple_(AccountHolding.differs_since, AccountHolding.id) < (after.at, after.id)
        )
    return (await session.execute(statement)).scalars().all()


def in_words(asset: str, theirs: Decimal, ours: Decimal) -> str:
    """Return what differs, in a sentence."""
    return f"the account holds {plain(theirs)} {asset}, and the book says {plain(ours)}"
