"""From a signal to an order, or to the reason why there is none."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tradingbot.core.amounts import plain
from tradingbot.core.settings import Settings
from tradingbot.exchanges import repository as accounts
from tradingbot.exchanges.base import Exchange
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.exchanges.service import default_account
from tradingbot.inference.registry import ModelRegistry
from tradingbot.inference.service import assess, veto
from tradingbot.orders import client_order_id, repository
from tradingbot.orders.changes import Changes, Changing
from tradingbot.orders.exchange_pool import ExchangePool, ask
from tradingbot.orders.models import Order
from tradingbot.orders.outcome import Later, Steps
from tradingbot.orders.placing import Placer, forbidden, is_exit, refuse, stale, switched_off
from tradingbot.orders.repository import Case
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions import service as positions
from tradingbot.risk import service as risk
from tradingbot.risk.evaluate import RefusalReason, evaluate
from tradingbot.risk.models import Rule
from tradingbot.risk.sizing import OrderIntent, desired_order
from tradingbot.signals.models import MarketPosition, Signal, SignalStatus
from tradingbot.strategies.models import Sizing, Strategy

_WAIT_FOR_ORDER = 0.5


@dataclass(frozen=True)
class Market:
    """What an exchange was asked before deciding.

    `price`; `equity`, if the size depends on it; the least quantity that an order may have.
    """

    price: Decimal | None
    equity: Decimal | None
    least: Decimal


class Decider:
    """Decides signals. Each is decided once: an order, a refusal, or nothing to do, in one transaction."""

    def __init__(
        self,
        changing: Changing,
        exchanges: ExchangePool,
        placer: Placer,
        registry: ModelRegistry,
        settings: Settings,
        steps: Steps,
    ) -> None:
        self._changing = changing
        self._exchanges = exchanges
        self._placer = placer
        self._registry = registry
        self._settings = settings
        self._steps = steps

    async def decide(self, row: OutboxRow, signal_id: UUID) -> UUID | Later | None:
        """Gives the order to place, None if there is none, or when to ask again.

        Raises:
            ExchangeError, EnvelopeError: the exchange does not say what is needed to decide.
            UnavailableError: PostgreSQL is away.
        """
        taken = await self._take(row, signal_id)
        await self._steps("taken")
        if not isinstance(taken, tuple):
            return taken
        case, account = taken
        busy = await self._wait_for_orders(case)
        if busy is not None:
            return busy
        async with self._exchanges.of(account) as exchange:
            market = await self._look(exchange, case)
        await self._steps("priced")
        async with self._changing.transaction() as changes:
            order = await self._conclude(changes, signal_id, row.created_at, account, market)
            await self._steps("deciding")
        await self._steps("decided")
        return order.id if isinstance(order, Order) else order

    async def _take(self, row: OutboxRow, signal_id: UUID) -> tuple[Case, ExchangeAccount] | UUID | None:
        """Finds what a stopped worker may have done already, and asks what needs no exchange."""
        async with self._changing.transaction() as changes:
            session = changes.session
            is_first = await repository.take_signal(session, signal_id)
            case = await repository.case(session, signal_id, row.created_at)
            if case is None:
                return None
            if is_first:
                await changes.signal(case.signal)
            order = await repository.find_of_signal(session, signal_id)
            if order is not None:
                return order.id
            if case.signal.status != SignalStatus.QUEUED:
                return None
            refusal = await switched_off(changes, case.user_active, case.strategy, case.signal)
            account = await _account(changes, case.strategy)
            refusal = refusal or forbidden(account, self._settings)
            if refusal is None and await self._is_superseded(changes, case.signal, row.id):
                reason = "a newer target position is queued"
                await _conclude_without_order(changes, case.signal, SignalStatus.NOTHING_TO_DO, reason)
                return None
            refusal = refusal or self._too_old(case)
            if refusal is not None:
                await refuse(changes, case.signal, refusal)
                return None
            return case, account

    async def _is_superseded(self, changes: Changes, signal: Signal, row_id: int) -> bool:
        """Tells whether a newer target makes this pointless. Plain buys and sells add up: all are traded.

        An exit gives way to another exit alone: a newer entry may be refused, and the position would stay.
        """
        if is_exit(signal):
            return await repository.has_newer_target(
                changes.session, signal, row_id, Signal.market_position == MarketPosition.FLAT
            )
        if signal.market_position is None:
            return False
        return await repository.has_newer_target(changes.session, signal, row_id)

    def _too_old(self, case: Case) -> RefusalReason | None:
        """Refuses what waited too long, but for exits: late is better than to stay in the market for ever."""
        limit = case.strategy.max_alert_age or self._settings.webhook_max_age
        if case.age <= limit or is_exit(case.signal):
            return None
        return stale(case.age, limit)

    async def _wait_for_orders(self, case: Case) -> Later | None:
        """The size depends on the position, and that on orders that are not over yet."""
        async with self._changing.transaction() as changes:
            orders = await repository.under_way(changes.session, case.strategy.id, case.signal.symbol)
        for order_id in orders:
            if not await self._placer.refresh(order_id):
                return Later(f"an earlier order in {case.signal.symbol} is not over", _WAIT_FOR_ORDER)
        return None

    async def _look(self, exchange: Exchange, case: Case) -> Market:
        timeout = self._exchanges.timeout
        symbol, price, equity = case.signal.symbol, case.signal.price, None
        if not is_exit(case.signal) or price is None or price <= 0:
            # An alert shall not get by the limits with a price of its own, where the exchange knows better.
            price = await ask(exchange.price(symbol), timeout) or price
        if case.strategy.sizing == Sizing.EQUITY_PERCENT and not is_exit(case.signal):
            equity = await ask(exchange.equity(symbol), timeout)
        # An exit may have an alert's price, which shall not make a position look like a trifle.
        least = await ask(exchange.least_quantity(symbol, None if is_exit(case.signal) else price), timeout)
        return Market(price, equity, least)

    async def _conclude(
        self, changes: Changes, signal_id: UUID, queued_at: datetime, account: ExchangeAccount, market: Market
    ) -> Order | Later | None:
        session = changes.session
        # Settings may have changed while the exchange was asked.
        case = await repository.case(session, signal_id, queued_at, keep=True)
        if case is None or case.signal.status != SignalStatus.QUEUED:
            return None
        signal, strategy = case.signal, case.strategy
        if (await _account(changes, strategy)).id != account.id:
            return Later("the strategy trades on another account now", 0)
        held = await positions.expected_quantity(session, strategy.id, signal.symbol)
        intent = desired_order(strategy, signal, held, market.price, market.equity)
        if isinstance(intent, RefusalReason):
            await refuse(changes, signal, intent)
            return None
        reason = _nothing_to_do(signal, held, intent, market.least)
        if intent is None or reason is not None:
            await _conclude_without_order(changes, signal, SignalStatus.NOTHING_TO_DO, reason)
            return None
        refusal = await self._objection(changes, case, intent, market.price)
        if refusal is not None:
            status = SignalStatus.VETOED if refusal.rule == Rule.MODEL else SignalStatus.REFUSED
            await refuse(changes, signal, refusal, status)
            return None
        return await _order(changes, signal, account, intent, market.price)

    async def _objection(
        self, changes: Changes, case: Case, intent: OrderIntent, price: Decimal | None
    ) -> RefusalReason | None:
        session = changes.session
        prediction = await assess(session, self._registry, case.strategy, case.signal)
        # A model has its say on what is entered, not on getting out.
        against = None if intent.reduce_only else veto(case.strategy, intent.side, prediction)
        if against is not None:
            return RefusalReason(Rule.MODEL, against)
        return evaluate(await risk.load_input(session, case.strategy, case.signal, intent, price, case.now))


def _nothing_to_do(signal: Signal, held: Decimal, intent: OrderIntent | None, least: Decimal) -> str | None:
    """Says why nothing is to be traded: the target is reached, but for what fees or rounding have left."""
    if intent is None:
        return f"{plain(held)} {signal.symbol} is what the signal asks for"
    has_target = signal.market_position is not None or is_exit(signal)
    if has_target and held != 0 and intent.quantity < least:
        missing = f"{plain(intent.quantity)} {signal.symbol}"
        return f"{missing} is missing to what the signal asks for, and {plain(least)} is the least order"
    return None


async def _account(changes: Changes, strategy: Strategy) -> ExchangeAccount:
    if strategy.exchange_account_id is not None:
        account = await accounts.find(changes.session, strategy.user_id, strategy.exchange_account_id)
        if account is not None:
            return account
    return await default_account(changes.session, strategy.user_id)


async def _conclude_without_order(
    changes: Changes, signal: Signal, status: SignalStatus, reason: str | None
) -> None:
    decided = await repository.decide_signal(changes.session, signal.id, status, reason)
    if decided is not None:
        await changes.signal(decided)
        changes.decided(status)


async def _order(
    changes: Changes, signal: Signal, account: ExchangeAccount, intent: OrderIntent, price: Decimal | None
) -> Order | None:
    order = await repository.insert_once(
        changes.session,
        {
            "user_id": signal.user_id,
            "strategy_id": signal.strategy_id,
            "exchange_account_id": account.id,
            "signal_id": signal.id,
            "client_order_id": client_order_id.for_signal(signal.id),
            "symbol": signal.symbol,
            "side": intent.side,
            "quantity": intent.quantity,
            "price": price,
            "reduce_only": intent.reduce_only,
        },
    )
    if order is None:
        # Another worker was quicker: it has the row by now, or will.
        return await repository.find_of_signal(changes.session, signal.id)
    decided = await repository.decide_signal(changes.session, signal.id, SignalStatus.ORDERED)
    if decided is not None:
        await changes.signal(decided)
    await changes.order(order, account.exchange)
    changes.decided(SignalStatus.ORDERED)
    return order
