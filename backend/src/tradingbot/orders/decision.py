"""From a signal to an order, or to the reason why there is none."""

from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

from tradingbot.core.amounts import ARITHMETIC, plain
from tradingbot.core.settings import Settings
from tradingbot.core.symbols import market_of
from tradingbot.exchanges import repository as accounts
from tradingbot.exchanges.base import Exchange, ExchangeError, MarketLimits, UnknownSymbolError
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.exchanges.models import Market as AccountMarket
from tradingbot.exchanges.service import default_account
from tradingbot.inference.registry import ModelRegistry
from tradingbot.inference.service import assess, veto
from tradingbot.orders import client_order_id, repository
from tradingbot.orders.changes import Changes, Changing
from tradingbot.orders.exchange_pool import ExchangePool, ask
from tradingbot.orders.models import Order, Side
from tradingbot.orders.outcome import Later, Steps
from tradingbot.orders.placing import Placer, forbidden, note_refusal, refuse, stale, switched_off
from tradingbot.orders.repository import Case
from tradingbot.outbox.models import OutboxRow
from tradingbot.positions import holdings
from tradingbot.positions import service as positions
from tradingbot.risk import service as risk
from tradingbot.risk.evaluate import ENTRY_RULES, RefusalReason, evaluate
from tradingbot.risk.models import Rule
from tradingbot.risk.sizing import (
    OrderIntent,
    closing_part,
    desired_order,
    exit_of,
    is_exit,
    may_close,
    without_short,
)
from tradingbot.signals.models import MarketPosition, Signal, SignalStatus
from tradingbot.strategies.models import Sizing, Strategy

_WAIT_FOR_ORDER = 0.5


@dataclass(frozen=True)
class Market:
    """What an exchange was asked before deciding.

    `price`; `equity`, if the size depends on it; what the market takes. What is held and less than `dust`
    cannot be got rid of. `theirs` is what a futures account holds there, if that was asked. Of a market that
    is not known to the exchange nothing is.
    """

    price: Decimal | None
    equity: Decimal | None
    limits: MarketLimits
    dust: Decimal
    theirs: Decimal | None = None
    is_known: bool = True


@dataclass(frozen=True)
class Objection:
    """What speaks against a signal: `refusal` says which rule, None: a newer target takes its place."""

    refusal: RefusalReason | None = None

    @property
    def reason(self) -> str:
        """Why, in words."""
        return "a newer target position is queued" if self.refusal is None else self.refusal.reason


@dataclass(frozen=True)
class Wanted:
    """What a signal asks for (None: nothing is left to do), what speaks against it, and what has been cut."""

    intent: OrderIntent | None
    against: Objection | None = None
    note: str | None = None


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
        # The row for which a strategy's account was last seen to differ.
        self._differed: dict[UUID, int] = {}

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
        case, account, against = taken
        busy = await self._wait_for_orders(case)
        if busy is not None:
            return busy
        async with self._exchanges.of(account) as exchange:
            try:
                market = await self._look(exchange, case, account, against)
            except UnknownSymbolError as error:
                # What is held of a market that is gone, or is there by another name, is still closed.
                against = against or Objection(RefusalReason(Rule.SYMBOL, str(error)))
                limits = MarketLimits(shorts=account.market == AccountMarket.FUTURE)
                market = Market(case.signal.price, None, limits, Decimal(0), is_known=False)
        await self._steps("priced")
        async with self._changing.transaction() as changes:
            order = await self._conclude(changes, row, signal_id, account, market, against)
            await self._steps("deciding")
        await self._steps("decided")
        return order.id if isinstance(order, Order) else order

    async def _take(
        self, row: OutboxRow, signal_id: UUID
    ) -> tuple[Case, ExchangeAccount, Objection | None] | UUID | None:
        """Finds what a stopped worker may have done already, and asks what needs no exchange.

        What speaks against opening a position does not end a signal that may close one.
        """
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
            never = refusal if refusal is not None and refusal.rule not in ENTRY_RULES else None
            never = never or forbidden(account, self._settings)
            if never is not None:
                await refuse(changes, case.signal, refusal or never)
                return None
            done = await _done_already(changes, case.signal)
            if done is not None:
                # No exchange is asked, and no other transaction made.
                await _conclude_without_order(changes, case.signal, SignalStatus.NOTHING_TO_DO, done)
                return None
            against = None if refusal is None else Objection(refusal)
            if against is None and await self._is_superseded(changes, case.signal, row.id):
                against = Objection()
            if against is None and (old := self._too_old(case)) is not None:
                against = Objection(old)
            if against is None or await self._may_close(changes, case.signal, against):
                return case, account, against
            await _object(changes, case.signal, against)
            return None

    async def _may_close(self, changes: Changes, signal: Signal, against: Objection) -> bool:
        """Return whether the signal may close something all the same."""
        if is_exit(signal):
            # Only a newer exit takes the place of an exit.
            return against.refusal is not None
        held, has_orders = await repository.exposure(changes.session, signal.strategy_id, signal.symbol)
        if against.refusal is None:
            return has_orders or exit_of(signal, held) is not None
        return has_orders or may_close(signal, held)

    async def _is_superseded(self, changes: Changes, signal: Signal, row_id: int) -> bool:
        """Tells whether a newer target makes this pointless. Plain buys and sells add up: all are traded.

        An exit gives way to another exit alone: a newer entry may be refused, and the position would stay.
        """
        has_target = signal.market_position is not None
        if is_exit(signal) or (signal.reduce_only and has_target):
            return await repository.has_newer_target(
                changes.session, signal, row_id, Signal.market_position == MarketPosition.FLAT
            )
        if not has_target:
            return False
        return await repository.has_newer_target(changes.session, signal, row_id)

    def _too_old(self, case: Case) -> RefusalReason | None:
        """Return the refusal of what waited too long."""
        limit = case.strategy.max_alert_age or self._settings.webhook_max_age
        return stale(case.age, limit) if case.age > limit else None

    async def _wait_for_orders(self, case: Case) -> Later | None:
        """The size depends on the position, and that on orders that are not over yet."""
        async with self._changing.transaction() as changes:
            orders = await repository.under_way(changes.session, case.strategy.id, case.signal.symbol)
        for order_id in orders:
            if not await self._placer.refresh(order_id):
                return Later(f"an earlier order in {case.signal.symbol} is not over", _WAIT_FOR_ORDER)
        return None

    async def _look(
        self, exchange: Exchange, case: Case, account: ExchangeAccount, against: Objection | None
    ) -> Market:
        timeout = self._exchanges.timeout
        symbol, price, equity = case.signal.symbol, case.signal.price, None
        only_closes = is_exit(case.signal) or against is not None
        limits = await ask(exchange.limits(symbol), timeout)
        # An alert's own price shall neither get by the limits nor make a position look like dust.
        theirs = None
        try:
            if not only_closes or price is None or price <= 0 or limits.min_exit(price) > limits.min_quantity:
                theirs = await ask(exchange.price(symbol), timeout)
        except ExchangeError:
            if not only_closes or price is None or price <= 0:
                raise
        price = price if theirs is None else theirs
        # What of a target is closed is known without its size; a plain sell is of it.
        needs_size = not is_exit(case.signal) and (against is None or case.signal.market_position is None)
        if case.strategy.sizing == Sizing.EQUITY_PERCENT and needs_size:
            if price is not None and price > 0 and account.mode == Mode.PAPER:
                # The equity is to be at this price, too, where we add it up ourselves.
                async with self._changing.transaction() as changes:
                    await positions.mark(changes.session, case.strategy.id, symbol, price, case.now)
            equity = await ask(exchange.equity(symbol), timeout)
        held: Decimal | None = None
        if _has_one_position(account) and not only_closes:
            # Its owner may have closed it a moment ago: to go through zero would open twice as much.
            held = await ask(exchange.holding(symbol), timeout)
        return Market(price, equity, limits, limits.min_exit(theirs), held)

    async def _conclude(
        self,
        changes: Changes,
        row: OutboxRow,
        signal_id: UUID,
        account: ExchangeAccount,
        market: Market,
        against: Objection | None,
    ) -> Order | Later | None:
        session = changes.session
        # Settings may have changed while the exchange was asked.
        case = await repository.case(session, signal_id, row.created_at, keep=True)
        if case is None or case.signal.status != SignalStatus.QUEUED:
            return None
        signal, strategy = case.signal, case.strategy
        if (await _account(changes, strategy)).id != account.id:
            return Later("the strategy trades on another account now", 0)
        held = await positions.expected_quantity(session, strategy.id, signal.symbol)
        if market.is_known:
            await positions.note_min_quantity(session, strategy.id, signal.symbol, market.dust)
        wanted = _wanted(strategy, signal, held, market, against, account.costs)
        intent, against = wanted.intent, wanted.against
        if against is None:
            reason = _nothing_to_do(signal, held, wanted, market)
            if intent is None or reason is not None:
                await _conclude_without_order(changes, signal, SignalStatus.NOTHING_TO_DO, reason)
                return None
            refusal = None
            if not intent.reduce_only and account.mode != Mode.PAPER:
                refusal = await _differs(changes, account, signal, market)
                if refusal is not None and not self._is_there_again(row):
                    return Later(refusal.reason, _WAIT_FOR_ORDER)
            refusal = refusal or await self._objection(changes, case, intent, market)
            if refusal is None:
                return await _order(changes, signal, account, intent, market.price, wanted.note)
            against = Objection(refusal)
        closing = _what_still_closes(signal, intent, held, against, market)
        if closing is None:
            await _object(changes, signal, against)
            return None
        return await _close_only(changes, signal, account, closing, market.price, against)

    def _is_there_again(self, row: OutboxRow) -> bool:
        """Return whether a difference was seen for this row before.

        What an exchange says of a trade and of what is held may be apart for a moment.
        """
        before = self._differed.get(row.strategy_id)
        self._differed[row.strategy_id] = row.id
        return before == row.id

    async def _objection(
        self, changes: Changes, case: Case, intent: OrderIntent, market: Market
    ) -> RefusalReason | None:
        session, price = changes.session, market.price
        prediction = await assess(session, self._registry, case.strategy, case.signal)
        # A model has its say on what is entered, not on getting out.
        against = None if intent.reduce_only else veto(case.strategy, intent.side, prediction)
        if against is not None:
            return RefusalReason(Rule.MODEL, against)
        return evaluate(
            await risk.load_input(session, case.strategy, case.signal, intent, price, case.now, market.dust)
        )


def _wanted(
    strategy: Strategy,
    signal: Signal,
    held: Decimal,
    market: Market,
    against: Objection | None,
    costs: Decimal,
) -> Wanted:
    """Return what the signal asks for, and what speaks against opening it: nothing does against an exit."""
    intent = desired_order(strategy, signal, held, market.price, market.equity, market.dust, costs)
    if isinstance(intent, RefusalReason):
        return Wanted(exit_of(signal, held), against or Objection(intent))
    if is_exit(signal) or (signal.reduce_only and against is not None and against.refusal is not None):
        against = None
    if intent is not None and signal.reduce_only:
        cut = closing_part(intent, held)
        return Wanted(cut, against, None if cut == intent else "the alert is reduce-only: it opens nothing")
    if intent is None or market.limits.shorts:
        return Wanted(intent, against)
    cut = without_short(intent, held)
    note = f"on spot no more is sold than the strategy holds, {plain(held)} {signal.symbol}"
    return Wanted(cut, against, None if cut == intent else note)


def _what_still_closes(
    signal: Signal, intent: OrderIntent | None, held: Decimal, against: Objection, market: Market
) -> OrderIntent | None:
    if intent is None:
        return None
    if against.refusal is None and exit_of(signal, held) is None:
        # The newer target asks for the same direction, or closes by itself.
        return None
    if against.refusal is not None and against.refusal.rule not in ENTRY_RULES:
        return None
    closing = closing_part(intent, held)
    if closing is not None and market.theirs is not None:
        # What is really there: the owner may have closed some of it.
        there = max(Decimal(0), market.theirs if closing.side == Side.SELL else -market.theirs)
        closing = replace(closing, quantity=min(closing.quantity, there))
    return None if closing is None or not closing.quantity or closing.quantity < market.dust else closing


async def _close_only(
    changes: Changes,
    signal: Signal,
    account: ExchangeAccount,
    closing: OrderIntent,
    price: Decimal | None,
    against: Objection,
) -> Order | None:
    """Make the order that closes what is held, and store why there is no more of it."""
    note = f"only what is held is closed: {against.reason}"
    order = await _order(changes, signal, account, closing, price, note)
    if against.refusal is not None:
        await note_refusal(changes, signal, against.refusal)
    return order


async def _object(changes: Changes, signal: Signal, against: Objection) -> None:
    """Store that nothing is traded, and why."""
    refusal = against.refusal
    if refusal is None:
        await _conclude_without_order(changes, signal, SignalStatus.NOTHING_TO_DO, against.reason)
        return
    status = SignalStatus.VETOED if refusal.rule == Rule.MODEL else SignalStatus.REFUSED
    await refuse(changes, signal, refusal, status)


def _nothing_to_do(signal: Signal, held: Decimal, wanted: Wanted, market: Market) -> str | None:
    """Says why nothing is to be traded: the target is reached, but for what fees or rounding have left."""
    intent = wanted.intent
    reduces = intent is None or closing_part(intent, held) == intent
    if held != 0 and abs(held) < market.dust and reduces:
        return (
            f"what is held, {plain(held)} {signal.symbol}, is dust: {plain(market.dust)} is the least order"
        )
    if intent is None:
        return wanted.note or _reached(held, signal)
    has_target = signal.market_position is not None or is_exit(signal)
    least = market.dust if reduces else market.limits.min_order(market.price)
    if has_target and held != 0 and intent.quantity < least:
        missing = f"{plain(intent.quantity)} {signal.symbol}"
        return f"{missing} is missing to what the signal asks for, and {plain(least)} is the least order"
    return None


def _reached(held: Decimal, signal: Signal) -> str:
    return f"{plain(held)} {signal.symbol} is what the signal asks for"


async def _differs(
    changes: Changes, account: ExchangeAccount, signal: Signal, market: Market
) -> RefusalReason | None:
    """Refuse to open something where the account holds something else than its strategies think."""
    session, name = changes.session, market_of(signal.symbol)
    asset, theirs = name, market.theirs
    if theirs is None or await repository.is_shared(session, account.id, signal.strategy_id, name):
        # What others are just trading there may be in what was seen, and not in the book.
        holding = await holdings.find(session, account.id, name)
        if holding is None or holding.differs_since is None:
            return None
        asset, theirs, ours = holding.asset, holding.quantity, holding.booked
    else:
        ours = await holdings.booked(session, account.id, name)
        if not holdings.differs(ARITHMETIC.subtract(theirs, ours), market.dust):
            return None
    words = holdings.in_words(asset, theirs, ours)
    return RefusalReason(
        Rule.SYMBOL,
        f"{words}: trade the difference back, or put the book right with `tradingbot position`",
    )


def _has_one_position(account: ExchangeAccount) -> bool:
    """Return whether the account has one position in each market, whoever trades there: real futures."""
    return account.market == AccountMarket.FUTURE and account.mode != Mode.PAPER


async def _holds(changes: Changes, signal: Signal) -> bool:
    """Return whether the strategy holds anything in the signal's market, or has open orders in it."""
    return any(await repository.exposure(changes.session, signal.strategy_id, signal.symbol))


async def _done_already(changes: Changes, signal: Signal) -> str | None:
    """Return why a signal asks for nothing any more, as far as that is known without its exchange."""
    sent_at = None if signal.market_position is None else signal.sent_at
    if sent_at is not None and await repository.has_decided_newer_target(changes.session, signal, sent_at):
        # It was overtaken on its way to us: the later one is what the chart says now.
        return "a target position that was sent later is done already"
    if is_exit(signal) and not await _holds(changes, signal):
        return _reached(Decimal(0), signal)
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
    changes: Changes,
    signal: Signal,
    account: ExchangeAccount,
    intent: OrderIntent,
    price: Decimal | None,
    note: str | None,
) -> Order | None:
    symbol = signal.symbol
    if intent.reduce_only:
        position = await positions.find(changes.session, signal.strategy_id, symbol)
        if position is not None:
            # By its own spelling it was got into; the signal's may name another exchange.
            symbol = position.symbol
            if price is None or price <= 0:
                # Paper fills at no other price, and an exit gets out.
                price = position.last_price
    order = await repository.insert_once(
        changes.session,
        {
            "user_id": signal.user_id,
            "strategy_id": signal.strategy_id,
            "exchange_account_id": account.id,
            "signal_id": signal.id,
            "client_order_id": client_order_id.for_signal(signal.id),
            "symbol": symbol,
            "side": intent.side,
            "quantity": intent.quantity,
            "price": price,
            "reduce_only": intent.reduce_only,
        },
    )
    if order is None:
        # Another worker was quicker: it has the row by now, or will.
        return await repository.find_of_signal(changes.session, signal.id)
    decided = await repository.decide_signal(changes.session, signal.id, SignalStatus.ORDERED, note)
    if decided is not None:
        await changes.signal(decided)
    await changes.order(order, account.exchange)
    changes.decided(SignalStatus.ORDERED)
    return order
