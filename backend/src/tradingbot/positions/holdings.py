"""What accounts hold at their exchange, and whether the book says so.

The book follows the exchange: a difference is never traded away. While an account holds more or less of a
market than the strategies on it think, nothing is opened there, and exits take what is really there, until it
agrees again or a person puts the book right (`correcting`).

On spot an account has other coins too. What is there beyond the book when a market is first looked at is the
owner's own, and so is what comes later. What goes is not: nobody can tell whose it was.
"""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.core.models import utc_now
from tradingbot.core.symbols import in_market, market_of
from tradingbot.exchanges.models import ExchangeAccount, Market
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.strategies.models import Strategy

_ZERO = Decimal(0)


async def note(
    session: AsyncSession, account: ExchangeAccount, market: str, theirs: Decimal, booked: Decimal
) -> AccountHolding | None:
    """Store what the account holds; return it if it has begun to differ from what is booked."""
    holding = await find(session, account.id, market, lock=True)
    if holding is None:
        values = {"exchange_account_id": account.id, "market": market, "quantity": theirs, "own": _ZERO}
        await session.execute(insert(AccountHolding).values(values).on_conflict_do_nothing())
        holding = await find(session, account.id, market, lock=True)
        if holding is None:
            # The account was deleted.
            return None
    differed = holding.differs_since is not None
    holding.quantity, holding.looked_at = theirs, utc_now()
    drift = ARITHMETIC.subtract(ARITHMETIC.subtract(theirs, booked), holding.own)
    if account.market == Market.SPOT and drift > 0:
        holding.own, drift = ARITHMETIC.add(holding.own, drift), _ZERO
    if not differs(drift, await _dust(session, account.id, market)):
        holding.differs_since = None
    elif not differed:
        holding.differs_since = holding.looked_at
    await session.flush()
    return holding if holding.differs_since is not None and not differed else None


def differs(drift: Decimal, dust: Decimal) -> bool:
    """Return whether so much too much or too little is more than dust."""
    return drift != 0 and abs(drift) >= dust


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


async def booked(session: AsyncSession, account_id: UUID, symbol: str) -> Decimal:
    """Return what the strategies on the account hold in the market, by the book."""
    statement = (
        select(func.sum(Position.quantity))
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.exchange_account_id == account_id, in_market(Position.symbol, symbol))
    )
    return (await session.execute(statement)).scalar_one() or _ZERO


async def differing(session: AsyncSession, user_id: UUID) -> Sequence[tuple[AccountHolding, Decimal]]:
    """Return where the user's accounts hold something else than what is booked, and what that is."""
    statement = (
        select(AccountHolding)
        .join(ExchangeAccount, ExchangeAccount.id == AccountHolding.exchange_account_id)
        .where(ExchangeAccount.user_id == user_id, AccountHolding.differs_since.is_not(None))
        .order_by(AccountHolding.differs_since, AccountHolding.market)
    )
    rows = (await session.execute(statement)).scalars().all()
    return [(row, await booked(session, row.exchange_account_id, row.market)) for row in rows]


def in_words(market: str, theirs: Decimal, own: Decimal, ours: Decimal) -> str:
    """Return what differs, in a sentence."""
    beside = f" beside {plain(own)} of your own" if own else ""
    return f"the account holds {plain(theirs)} {market}, and the book says {plain(ours)}{beside}"


async def _dust(session: AsyncSession, account_id: UUID, market: str) -> Decimal:
    statement = (
        select(func.max(Position.min_quantity))
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.exchange_account_id == account_id, in_market(Position.symbol, market))
    )
    return (await session.execute(statement)).scalar_one() or _ZERO
