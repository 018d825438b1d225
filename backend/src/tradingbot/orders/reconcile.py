"""Compares what we think with what exchanges say: open orders often, positions now and then.

One worker at a time does it for an account. Nothing is ever "corrected" by trading: what an exchange says of
an order is booked, and a position that differs is told to people, once: see `positions.holdings`.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from random import SystemRandom
from time import monotonic
from typing import TypeVar
from uuid import UUID

import structlog

from tradingbot.core import metrics
from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.core.crypto import EnvelopeError
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import CredentialsError, Exchange, ExchangeError
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.orders import repository
from tradingbot.orders.changes import Changing
from tradingbot.orders.exchange_pool import ExchangePool, ask
from tradingbot.orders.models import FINAL_STATES
from tradingbot.orders.placing import Placer
from tradingbot.orders.repository import MarketBooked
from tradingbot.positions import holdings

log = structlog.stdlib.get_logger("tradingbot.reconcile")

_ORDERS_AT_ONCE = 100
# For so many seconds an order that was cancelled may still turn out to have been filled before.
_LATE_FILLS = 60.0
# Open orders that nobody came back to for so long are queued again.
_FORGOTTEN = 120.0

# So many failures one after the other mean that the exchange is away.
_FAILURES = 3

ItemT = TypeVar("ItemT")

_random = SystemRandom()


class Reconciler:
    """Asks exchanges, one account at a time."""

    def __init__(
        self,
        changing: Changing,
        claims: Changing,
        exchanges: ExchangePool,
        placer: Placer,
        settings: Settings,
    ) -> None:
        self._changing = changing
        self._claims = claims
        self._exchanges = exchanges
        self._placer = placer
        self._settings = settings
        # By account and asset: what it had more than was booked, when it was last compared.
        self._seen: dict[tuple[UUID, str], Decimal] = {}
        self._positions_due = monotonic() + settings.reconcile_positions_interval

    async def round(self) -> None:
        """Goes through all accounts once.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        with_positions = monotonic() >= self._positions_due
        if with_positions:
            self._positions_due = monotonic() + self._settings.reconcile_positions_interval
        async with self._changing.transaction() as changes:
            for order_id in await repository.requeue_forgotten(changes.session, _FORGOTTEN):
                log.warning("an order that nobody came back to is queued", order_id=str(order_id))
            accounts = await repository.accounts_to_reconcile(changes.session, _LATE_FILLS)
            holding = await repository.accounts_with_positions(changes.session) if with_positions else []
        for account in accounts:
            await self._exclusively(account, with_orders=True)
        for account in holding:
            await self._exclusively(account, with_orders=False)

    async def _exclusively(self, account: ExchangeAccount, *, with_orders: bool) -> None:
        async with self._claims.transaction() as lock:
            if not await repository.try_lock_account(lock.session, account.id):
                return
            try:
                async with self._exchanges.of(account) as exchange:
                    if with_orders:
                        await self._orders(exchange, account)
                    elif account.mode != Mode.PAPER:
                        await self._positions(exchange, account)
            except (ExchangeError, EnvelopeError) as error:
                log.warning("an exchange cannot be asked", account_id=str(account.id), reason=str(error))

    async def _orders(self, exchange: Exchange, account: ExchangeAccount) -> None:
        quiet = min(self._settings.reconcile_interval, 2.0)
        async with self._changing.transaction() as changes:
            orders = await repository.to_reconcile(
                changes.session, account.id, quiet, _LATE_FILLS, _ORDERS_AT_ONCE
            )

        async def ask_about(order_id: UUID) -> None:
            async with self._changing.transaction() as changes:
                placement = await repository.placement(changes.session, order_id)
            if placement is None:
                return
            before = placement.order.state
            after = await self._placer.follow(exchange, placement)
            if after is not None and after.state != before and after.state in FINAL_STATES:
                log.info("an open order is over", order_id=str(order_id), state=after.state)

        await self._each(orders, ask_about)

    async def _positions(self, exchange: Exchange, account: ExchangeAccount) -> None:
        async with self._changing.transaction() as changes:
            markets = await repository.markets_of_account(changes.session, account.id)
        # On spot the markets of one base asset share a balance.
        groups: dict[str, list[MarketBooked]] = defaultdict(list)

        async def group(market: MarketBooked) -> None:
            groups[await ask(exchange.asset(market.name), self._exchanges.timeout)].append(market)

        async def compare(asset: str) -> None:
            if any(market.is_busy for market in groups[asset]):
                return
            theirs = await ask(exchange.holding(groups[asset][0].name), self._exchanges.timeout)
            if theirs is not None:
                await self._compare(account, asset, groups[asset], theirs)

        await self._each(markets, group)
        await self._each(list(groups), compare)

    async def _each(self, items: Sequence[ItemT], work: Callable[[ItemT], Awaitable[None]]) -> None:
        """Works on all, in any order: one that fails every time shall not keep the others from their turn.

        Raises:
            ExchangeError: the exchange is away, or does not accept the key.
            UnavailableError: PostgreSQL is away.
        """
        failures = 0
        for item in _random.sample(items, len(items)):
            try:
                await work(item)
            except (CredentialsError, UnavailableError):
                raise
            except ExchangeError as error:
                failures += 1
                if failures == _FAILURES:
                    raise
                log.warning("passed over", item=str(item), reason=str(error))
            except Exception:
                log.exception("passed over", item=str(item))
            else:
                failures = 0

    async def _compare(
        self, account: ExchangeAccount, asset: str, markets: Sequence[MarketBooked], theirs: Decimal
    ) -> None:
        booked = sum((market.quantity for market in markets), Decimal(0))
        key, difference = (account.id, asset), ARITHMETIC.subtract(theirs, booked)
        # A fill may be on its way to us: only what is seen twice is so.
        is_there_again = self._seen.get(key) == difference
        self._seen[key] = difference
        if not is_there_again:
            return
        async with self._changing.transaction() as changes:
            differ = [
                market.name
                for market in sorted(markets)
                if await holdings.note(changes.session, account, market.name, asset, theirs, booked)
            ]
            if not differ:
                return
            changes.failure(
                f"{', '.join(differ)}: position differs",
                f"{account.name}: {holdings.in_words(asset, theirs, booked)}. Nothing is opened there until"
                " it agrees again: trade the difference back, or put the book right with `tradingbot position"
                " adopt` (the exchange is right) or `correct` (say how much it is).",
            )
        metrics.RECONCILE_DIFFERENCES.labels("position").inc()
        log.warning(
            "a position differs from the exchange's",
            account_id=str(account.id),
            markets=differ,
            ours=plain(booked),
            theirs=plain(theirs),
        )
