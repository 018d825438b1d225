"""From a stored order to its fills, through whatever happens between us and the exchange.

The fence: only who moves an order from `new` to `submitted`, in a committed transaction, may send it, and
sends it at once or never. Whoever finds an order `submitted` that it did not send asks the exchange by client
order id, and sends again only when the exchange, asked after the time in which the first request could still
have arrived, does not know it.
"""

import asyncio
from datetime import datetime
from decimal import Decimal
from time import monotonic
from uuid import UUID

import structlog

from tradingbot.core.amounts import ARITHMETIC, plain, to_scale
from tradingbot.core.crypto import EnvelopeError
from tradingbot.core.errors import UnavailableError
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import (
    CredentialsError,
    Exchange,
    ExchangeError,
    MarketLimits,
    NotSentError,
    OrderReport,
    OrderRequest,
    OutcomeUnknownError,
    RejectedError,
)
from tradingbot.exchanges.models import ExchangeAccount
from tradingbot.exchanges.service import LiveForbiddenError, check_mode
from tradingbot.orders import client_order_id, exits, repository
from tradingbot.orders.changes import Changes, Changing
from tradingbot.orders.exchange_pool import ExchangePool, ask
from tradingbot.orders.models import FINAL_STATES, Order, OrderState, Side
from tradingbot.orders.outcome import DONE, Later, Outcome, Steps
from tradingbot.orders.repository import Placement
from tradingbot.orders.states import may_become
from tradingbot.positions import service as positions
from tradingbot.risk import service as risk
from tradingbot.risk.evaluate import ENTRY_RULES, RefusalReason, evaluate
from tradingbot.risk.models import Rule
from tradingbot.signals.models import Signal, SignalStatus
from tradingbot.strategies.models import Strategy

log = structlog.stdlib.get_logger("tradingbot.orders")

_ROUNDS = 6
_SOON = 0.2
# Odd: the last step makes an order that is not sent, which is found if a version without parts ends the row.
_STEPS_AT_ONCE = 21
_QUICK_PARTS = 20
_WAIT_FOR_PART = 0.5
# So often is an exit refused before it is taken for done by somebody else.
_SURE_IT_IS_GONE = 3
_MOMENT = 0.1
_MARGIN_OF_VALUE = Decimal("1.1")


class Placer:
    """Places orders and finds out what became of them."""

    def __init__(self, changing: Changing, exchanges: ExchangePool, settings: Settings, steps: Steps) -> None:
        self._changing = changing
        self._exchanges = exchanges
        self._settings = settings
        self._steps = steps

    async def place(self, order_id: UUID, queued_at: datetime | None = None) -> Outcome:
        """Goes on with the order from wherever it stands, until the exchange has it or it is over."""
        for _ in range(_ROUNDS):
            async with self._changing.transaction() as changes:
                placement = await repository.placement(changes.session, order_id, queued_at)
            if placement is None or is_known(placement.order):
                return DONE
            if placement.order.state == OrderState.NEW and placement.order.cancel_requested_at is not None:
                return await self.cancel(order_id)
            try:
                async with self._exchanges.of(placement.account) as exchange:
                    outcome = await self._step(exchange, placement)
            except (CredentialsError, EnvelopeError) as error:
                outcome = await self._not_opened(placement, error)
            if outcome is not None:
                return outcome
        return Later("the order changes all the time")

    async def finish(self, order_id: UUID) -> Outcome:
        """Go on until what a placed order was to close is closed, by further orders if need be."""
        for _ in range(_STEPS_AT_ONCE):
            async with self._changing.transaction() as changes:
                left = await exits.left_of(changes.session, order_id)
            if left is None:
                return DONE
            outcome = await self._go_on(left)
            if outcome is not None:
                return outcome
        return Later("more is left to close", 0)

    async def refresh(self, order_id: UUID) -> bool:
        """Asks the exchange where an order stands; tells whether it is over."""
        async with self._changing.transaction() as changes:
            placement = await repository.placement(changes.session, order_id)
        if placement is None:
            return True
        if not is_known(placement.order):
            # Nobody else comes back to it now: we have its strategy.
            await self.place(order_id)
            async with self._changing.transaction() as changes:
                order = await repository.find(changes.session, order_id)
        else:
            async with self._exchanges.of(placement.account) as exchange:
                order = await self.follow(exchange, placement)
        return order is None or order.state in FINAL_STATES

    async def follow(self, exchange: Exchange, placement: Placement) -> Order | None:
        """Cancels if that is wanted, or asks; books what the exchange says; gives the order as it is then.

        Raises:
            ExchangeError: it did not answer.
        """
        order = placement.order
        report = None
        is_over = order.state in FINAL_STATES
        if order.cancel_requested_at is not None and is_known(order) and not is_over:
            cancelling = exchange.cancel(order.client_order_id, order.symbol)
            report = await ask(cancelling, self._exchanges.timeout)
        if report is None:
            report = await self._find(exchange, order)
        if report is not None:
            return await self.adopt(order.id, report, placement.account)
        if is_known(order) and not is_over and is_settled(exchange, placement):
            return await self._lost(placement)
        return order

    async def adopt(self, order_id: UUID, report: OrderReport, account: ExchangeAccount) -> Order | None:
        """Books what an exchange says of an order. Saying it again changes nothing.

        What a person has said of it before stands: people are told if the exchange says something else.
        """
        async with self._changing.transaction() as changes:
            session = changes.session
            order = await repository.lock(session, order_id)
            if order is None:
                return None
            if order.settled_at is not None:
                _tell_if_it_differs(changes, order, report)
                return order
            for trade in report.trades:
                if await positions.apply(session, order, trade):
                    changes.fill(order, trade, account.exchange)
            moved = await _move_as_reported(changes, order, report)
            if moved is not None:
                await changes.order(moved, account.exchange)
                _tell_rejection(changes, moved)
            await self._steps("recording")
        await self._steps("recorded")
        return moved or order

    async def cancel(self, order_id: UUID) -> Outcome:
        """Carries out a request to cancel, as far as possible now; the reconcile loop does the rest."""
        async with self._changing.transaction() as changes:
            placement = await repository.placement(changes.session, order_id)
            if placement is None or placement.order.state in FINAL_STATES:
                return DONE
            order = await repository.move(
                changes.session,
                order_id,
                OrderState.CANCELLED,
                repository.is_new(),
                reason="cancelled before it was sent",
            )
            if order is not None:
                await changes.order(order, placement.account.exchange)
                return DONE
        if is_known(placement.order):
            async with self._exchanges.of(placement.account) as exchange:
                await self.follow(exchange, placement)
        return DONE

    async def give_up(self, order: Order, account: ExchangeAccount, reason: str) -> bool:
        """Rejects an order that was never sent; tells whether it was still so."""
        async with self._changing.transaction() as changes:
            rejected = await self._reject(changes, order, account, reason)
            if rejected and order.signal_id is not None:
                await fail(changes, order.signal_id, reason)
        return rejected

    async def stuck(self, order: Order) -> str | None:
        """Return the open order's symbol if it closes something: people are told if it does not get out."""
        async with self._changing.transaction() as changes:
            return order.symbol if await exits.closes(changes.session, order) else None

    async def _go_on(self, left: exits.Left) -> Outcome | None:
        last = left.last
        if not is_known(last):
            outcome = await self.place(last.id)
            return outcome if isinstance(outcome, Later) else None
        if last.state not in FINAL_STATES:
            # A market order is filled in a moment, as a rule, and another turn of the worker takes longer.
            await asyncio.sleep(_MOMENT)
            if await self.refresh(last.id):
                return None
            return Later(f"the exit in {last.symbol} is not filled", _WAIT_FOR_PART)
        async with self._changing.transaction() as changes:
            placement = await repository.placement(changes.session, last.id)
        if placement is None:
            return DONE
        async with self._exchanges.of(placement.account) as exchange:
            _, least = await self._least_exit(exchange, last)
        async with self._changing.transaction() as changes:
            if left.orders > client_order_id.MOST_PARTS and left.quantity >= least:
                text = f"{left.orders} orders did not close it: close what is left by hand"
                changes.failure(f"{last.symbol}: an exit does not get out", text)
                return DONE
            part = await exits.go_on(changes.session, left, least)
            if part is None:
                await positions.note_min_quantity(changes.session, last.strategy_id, last.symbol, least)
                return DONE
            await changes.order(part, placement.account.exchange)
        if last.state == OrderState.FILLED:
            return None
        pause = None
        if last.filled_quantity == 0 and left.orders >= _QUICK_PARTS:
            pause = self._settings.worker_retry_longest * 10
        filled = f"the exchange filled {plain(last.filled_quantity)} of {plain(last.quantity)}"
        return Later(filled, pause, last.symbol)

    async def _step(self, exchange: Exchange, placement: Placement) -> Outcome | None:
        if placement.order.state == OrderState.NEW:
            return await self._send(exchange, placement)
        return await self._resolve(exchange, placement)

    async def _send(self, exchange: Exchange, placement: Placement) -> Outcome | None:
        order, account = placement.order, placement.account
        async with self._changing.transaction() as changes:
            refusal = await self._objection(changes, placement)
            if refusal is not None:
                if await self._cut(changes, placement, refusal):
                    return None
                await self._refuse(changes, placement, refusal)
                return DONE
            issued_at, started = utc_now(), monotonic()
            submitted = await repository.submit(changes.session, order.id, order.attempts)
            if submitted is None:
                return None
            await changes.order(submitted, account.exchange)
            await self._steps("submitting")
        await self._steps("submitted")
        if monotonic() - started > max(exchange.settle_time / 2, 1):
            # Others may soon take it for lost: too late to send it safely.
            return Later("the process was held up before it could send the order", _SOON)
        return await self._post(exchange, submitted, account, issued_at)

    async def _post(
        self, exchange: Exchange, order: Order, account: ExchangeAccount, issued_at: datetime
    ) -> Outcome | None:
        try:
            async with asyncio.timeout(self._exchanges.timeout):
                report = await exchange.place(_request(order, issued_at))
        except NotSentError as error:
            return await self._not_sent(order, account, error)
        except (RejectedError, CredentialsError) as error:
            return await self._rejected(exchange, order, account, error)
        except (OutcomeUnknownError, TimeoutError, UnavailableError) as error:
            return await self._unknown(order, account, str(error) or "no answer in time")
        except Exception as error:
            log.exception("an order's answer is not understood", order_id=str(order.id))
            return await self._unknown(
                order, account, f"the answer was not understood: {type(error).__name__}"
            )
        await self._steps("placed")
        await self.adopt(order.id, report, account)
        return DONE

    async def _resolve(self, exchange: Exchange, placement: Placement) -> Outcome | None:
        order, account = placement.order, placement.account
        if order.state == OrderState.SUBMITTED:
            await self._unknown(order, account, "it was sent, or just about to be, when its worker stopped")
            return None
        try:
            report = await self._find(exchange, order)
        except ExchangeError as error:
            reason = f"the exchange does not say what became of the order: {error}"
            return Later(reason, stuck=await self.stuck(order))
        await self._steps("found")
        if report is not None:
            await self.adopt(order.id, report, account)
            return DONE
        if not is_settled(exchange, placement):
            return Later("the exchange does not know the order, or not yet", _WAIT_FOR_PART)
        async with self._changing.transaction() as changes:
            back = await repository.move(
                changes.session,
                order.id,
                OrderState.NEW,
                repository.is_attempt(order.attempts),
                reason="the exchange never got it",
            )
            if back is not None:
                await changes.order(back, account.exchange)
        return None

    async def _find(self, exchange: Exchange, order: Order) -> OrderReport | None:
        return await ask(exchange.find(order.client_order_id, order.symbol), self._exchanges.timeout)

    async def _objection(self, changes: Changes, placement: Placement) -> RefusalReason | None:
        """Gives what has come up against sending the order since it was made."""
        signal, strategy = placement.signal, placement.strategy
        refusal = forbidden(placement.account, self._settings)
        if refusal is not None:
            return refusal
        if signal is not None:
            refusal = await switched_off(changes, placement.user_active, strategy, signal)
        elif not (placement.user_active and strategy.is_active):
            first = await exits.first_of(changes.session, placement.order)
            if first is not None and first.signal_id is not None:
                refusal = RefusalReason(Rule.STRATEGY_OFF, "the strategy, or its user, is switched off")
        limit = strategy.max_alert_age or self._settings.webhook_max_age
        if refusal is None and placement.age > limit:
            refusal = stale(placement.age, limit)
        if refusal is not None and placement.order.reduce_only and refusal.rule in ENTRY_RULES:
            return None
        return refusal

    async def _cut(self, changes: Changes, placement: Placement, refusal: RefusalReason) -> bool:
        """Leave of an order that may not be sent what it closes; return whether there is any."""
        order, signal, session = placement.order, placement.signal, changes.session
        if refusal.rule not in ENTRY_RULES:
            return False
        await repository.lock(session, order.id)
        quantity = await exits.closes(session, order)
        cut = await repository.resize(session, order.id, quantity) if quantity else None
        if cut is None:
            return False
        await changes.order(cut, placement.account.exchange)
        if signal is not None:
            await _close_only(changes, signal.id, refusal.reason)
            await note_refusal(changes, signal, refusal)
        return True

    async def _refuse(self, changes: Changes, placement: Placement, refusal: RefusalReason) -> None:
        order, signal = placement.order, placement.signal
        if not await self._reject(changes, order, placement.account, refusal.reason):
            return
        if signal is None:
            changes.failure(f"{order.symbol}: order not sent", refusal.reason)
        else:
            await refuse(changes, signal, refusal)

    async def _reject(self, changes: Changes, order: Order, account: ExchangeAccount, reason: str) -> bool:
        moved = await repository.move(
            changes.session,
            order.id,
            OrderState.REJECTED,
            repository.is_new(),
            repository.is_attempt(order.attempts),
            reason=reason[:500],
        )
        if moved is None:
            return False
        await changes.order(moved, account.exchange)
        return True

    async def _not_opened(self, placement: Placement, error: Exception) -> Outcome | None:
        order, account = placement.order, placement.account
        reason = f"the exchange account cannot be used: {error}"
        stuck = await self.stuck(order)
        if stuck or order.state != OrderState.NEW:
            return Later(reason, stuck=stuck)
        async with self._changing.transaction() as changes:
            if not await self._reject(changes, order, account, reason):
                return None
            changes.failure(f"{order.symbol}: order not sent", reason)
            if order.signal_id is not None:
                await fail(changes, order.signal_id, reason)
        return DONE

    async def _not_sent(self, order: Order, account: ExchangeAccount, error: NotSentError) -> Outcome:
        async with self._changing.transaction() as changes:
            back = await repository.move(
                changes.session,
                order.id,
                OrderState.NEW,
                repository.is_attempt(order.attempts),
                reason=f"not sent: {error}"[:500],
            )
            if back is not None:
                await changes.order(back, account.exchange)
        reason = f"the exchange did not take the order: {error}"
        return Later(reason, error.retry_after, await self.stuck(order))

    async def _rejected(
        self,
        exchange: Exchange,
        order: Order,
        account: ExchangeAccount,
        refusal: RejectedError | CredentialsError,
    ) -> Outcome | None:
        reason, report = str(refusal), None
        if order.attempts > 1:
            # "Duplicate" would be said of one that has arrived after all.
            try:
                report = await self._find(exchange, order)
            except ExchangeError as error:
                # A key that opens nothing says nothing of "duplicate", and earlier attempts are settled.
                if not (isinstance(refusal, CredentialsError) and isinstance(error, CredentialsError)):
                    return await self._unknown(order, account, f"{reason}; and then: {error}")
            if report is not None:
                await self.adopt(order.id, report, account)
                return DONE
        again = await self._try_again(exchange, order, account, reason)
        if again is not None:
            return again
        report = OrderReport(order.client_order_id, None, OrderState.REJECTED, (), reason[:500])
        await self.adopt(order.id, report, account)
        return DONE

    async def _try_again(
        self, exchange: Exchange, order: Order, account: ExchangeAccount, reason: str
    ) -> Outcome | None:
        """Leave of a refused order what it closes, to be sent again; None if it closes nothing."""
        if not await self.stuck(order):
            return None
        limits, least = await self._least_exit(exchange, order)
        available = await self._available(exchange, order)
        if not limits.shorts and "NOTIONAL" in reason:
            # By the exchange's own price: Binance takes the average of some minutes.
            least = to_scale(ARITHMETIC.multiply(least, _MARGIN_OF_VALUE))
        values: dict[str, Decimal | bool] = {}
        async with self._changing.transaction() as changes:
            session = changes.session
            await repository.lock(session, order.id)
            quantity = await exits.closes(session, order)
            if quantity == 0:
                return None
            if quantity < least:
                await positions.note_min_quantity(session, order.strategy_id, order.symbol, least)
                reason = f"{exits.DUST}, less than the market's least order, {plain(least)}: {reason}"
                target = OrderState.CANCELLED
            elif available is not None and available < least and order.attempts >= _SURE_IT_IS_GONE:
                # Not at once: what an exchange says of a trade and of what is held may be apart for a moment.
                reason = f"{exits.GONE}, it has {plain(available)} of {plain(quantity)}: {reason}"
                target = OrderState.CANCELLED
            else:
                if available is not None and least <= available < quantity:
                    reason = f"{reason}; the account holds {plain(available)} of {plain(quantity)}"
                    quantity = available
                target = OrderState.NEW
                values = {"quantity": quantity, "reduce_only": True}
            is_attempt = repository.is_attempt(order.attempts)
            moved = await repository.move(
                session, order.id, target, is_attempt, reason=reason[:500], **values
            )
            if moved is not None:
                await changes.order(moved, account.exchange)
                if order.signal_id is not None and not order.reduce_only:
                    await _close_only(changes, order.signal_id, reason)
                if reason.startswith(exits.GONE):
                    changes.failure(
                        f"{order.symbol}: an exit ends, and the book still has a position", reason
                    )
        return Later(reason, stuck=order.symbol) if target == OrderState.NEW else DONE

    async def _least_exit(self, exchange: Exchange, order: Order) -> tuple[MarketLimits, Decimal]:
        """Return the market's limits and the least quantity of an exit, as far as the exchange says them."""
        limits, price = MarketLimits(), None
        try:
            limits = await ask(exchange.limits(order.symbol), self._exchanges.timeout)
            if not limits.shorts:
                price = await ask(exchange.price(order.symbol), self._exchanges.timeout)
        except ExchangeError as error:
            log.warning("an exchange does not say what it takes", reason=str(error))
        return limits, limits.min_exit(price)

    async def _available(self, exchange: Exchange, order: Order) -> Decimal | None:
        """Return how much the account has there for the order to close, None if the exchange does not say."""
        try:
            held = await ask(exchange.holding(order.symbol), self._exchanges.timeout)
            if held is None:
                return None
            return max(Decimal(0), held if order.side == Side.SELL else -held)
        except ExchangeError as error:
            log.warning("an exchange does not say what can be sold", reason=str(error))
            return None

    async def _unknown(self, order: Order, account: ExchangeAccount, reason: str) -> Outcome:
        async with self._changing.transaction() as changes:
            moved = await repository.move(
                changes.session,
                order.id,
                OrderState.UNKNOWN,
                repository.is_attempt(order.attempts),
                repository.is_not_accepted(),
                reason=reason[:500],
            )
            if moved is not None:
                await changes.order(moved, account.exchange)
        # The first attempt is not worth a message: it is asked about in a moment.
        stuck = await self.stuck(order) if order.attempts > 1 else None
        return Later(f"it is not known what became of the order: {reason}", _SOON, stuck)

    async def _lost(self, placement: Placement) -> Order | None:
        """An order that the exchange had and does not know any more can fill no further."""
        async with self._changing.transaction() as changes:
            order = await repository.move(
                changes.session,
                placement.order.id,
                OrderState.CANCELLED,
                reason=exits.LOST,
            )
            if order is None:
                return None
            await changes.order(order, placement.account.exchange)
            changes.failure(f"{order.symbol}: order lost", f"the exchange forgot {order.client_order_id}")
            return order


def is_known(order: Order) -> bool:
    """Tells whether an order is over, or the exchange has said that it has it."""
    return order.state in FINAL_STATES or order.exchange_order_id is not None


def is_settled(exchange: Exchange, placement: Placement) -> bool:
    """Tells whether what was sent has arrived by now, or never will: see `Exchange.settle_time`."""
    if placement.sent_ago is None or exchange.settle_time == 0:
        return True
    return placement.sent_ago > exchange.settle_time


def stale(age: float, limit: float) -> RefusalReason:
    """The refusal of what comes too late."""
    return RefusalReason(Rule.STALE, f"the signal is {age:.0f} s old, at most {limit:g} s are allowed")


def forbidden(account: ExchangeAccount, settings: Settings) -> RefusalReason | None:
    """Refuses real money where it is not allowed."""
    try:
        check_mode(account, settings)
    except LiveForbiddenError as error:
        return RefusalReason(Rule.LIVE_FORBIDDEN, error.detail)
    return None


async def switched_off(
    changes: Changes, user_active: bool, strategy: Strategy, signal: Signal
) -> RefusalReason | None:
    """Asks for kill switches and whether user and strategy are active."""
    if not user_active:
        return RefusalReason(Rule.STRATEGY_OFF, "the user is not active")
    return evaluate(await risk.load_input(changes.session, strategy, signal, None, None, utc_now()))


async def refuse(
    changes: Changes, signal: Signal, refusal: RefusalReason, status: SignalStatus = SignalStatus.REFUSED
) -> None:
    """Stores that a signal is not traded, and why."""
    decided = await repository.decide_signal(changes.session, signal.id, status, refusal.reason)
    if decided is not None and await note_refusal(changes, decided, refusal):
        changes.decided(status)


async def note_refusal(changes: Changes, signal: Signal, refusal: RefusalReason) -> bool:
    """Store why the signal, or what it would have opened, is not traded; return whether that is new."""
    if not await risk.store_refusal(changes.session, signal, refusal):
        return False
    changes.refusal(signal.symbol, refusal)
    return True


async def fail(changes: Changes, signal_id: UUID, reason: str) -> None:
    """Stores that nothing came of a signal, through no rule of the user's."""
    signal = await repository.decide_signal(changes.session, signal_id, SignalStatus.FAILED, reason)
    if signal is not None:
        await changes.signal(signal)
        changes.decided(SignalStatus.FAILED)
        changes.failure(f"{signal.symbol}: signal failed", reason)


async def _close_only(changes: Changes, signal_id: UUID, reason: str) -> None:
    """Store that of what the signal asks for only the exit is made."""
    note = f"only what is held is closed: {reason}"
    signal = await repository.decide_signal(changes.session, signal_id, SignalStatus.ORDERED, note)
    if signal is not None:
        await changes.signal(signal)


async def _move_as_reported(changes: Changes, order: Order, report: OrderReport) -> Order | None:
    """Brings the state of a locked order to what the exchange says, as far as a way leads there."""
    session = changes.session
    target = report.state
    if target == OrderState.SUBMITTED and order.filled_quantity > 0:
        target = OrderState.PARTIALLY_FILLED
    if order.state in FINAL_STATES:
        return None
    name = report.exchange_order_id or order.exchange_order_id or report.client_order_id
    if order.state == OrderState.NEW:
        # It had been taken for lost, and now it is there. The move changes `order` too.
        await repository.move(session, order.id, OrderState.SUBMITTED)
    if target == OrderState.REJECTED and order.state == OrderState.PARTIALLY_FILLED:
        target = OrderState.CANCELLED
    if not may_become(OrderState(order.state), target):
        await repository.accept(session, order.id, name)
        return None
    values = {"exchange_order_id": report.exchange_order_id if target == OrderState.REJECTED else name}
    moved = await repository.move(session, order.id, target, reason=report.reason, **values)
    if moved is None or target != OrderState.REJECTED or moved.signal_id is None:
        return moved
    if await exits.left_of(session, moved.id) is None:
        await fail(changes, moved.signal_id, f"the exchange refused the order: {report.reason}")
    return moved


def _tell_rejection(changes: Changes, order: Order) -> None:
    if order.state == OrderState.REJECTED and order.signal_id is None:
        changes.failure(f"{order.symbol}: order refused by the exchange", order.reason or "no reason given")


def _tell_if_it_differs(changes: Changes, order: Order, report: OrderReport) -> None:
    filled = sum((to_scale(trade.quantity) for trade in report.trades), Decimal(0))
    if filled != order.filled_quantity:
        changes.failure(
            f"{order.symbol}: a settled order differs",
            f"of {order.client_order_id} the exchange says now that {plain(filled)} is filled, and"
            f" {plain(order.filled_quantity)} is booked as it was settled",
        )


def _request(order: Order, issued_at: datetime) -> OrderRequest:
    return OrderRequest(
        order.client_order_id,
        order.symbol,
        Side(order.side),
        order.quantity,
        order.price,
        order.reduce_only,
        issued_at,
    )
