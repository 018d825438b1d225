"""What others learn of a change: events in its transaction, metrics and messages after its commit."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core import metrics
from tradingbot.core.amounts import plain
from tradingbot.core.database import Database
from tradingbot.events.service import EventType, record
from tradingbot.exchanges.base import Trade
from tradingbot.notifications.notifier import Notifier
from tradingbot.orders.models import Order
from tradingbot.orders.schemas import OrderOut
from tradingbot.risk.evaluate import RefusalReason
from tradingbot.signals.models import Signal, SignalStatus
from tradingbot.signals.schemas import SignalOut


class Changes:
    """The changes of one transaction.

    Locks are taken in one order everywhere: order, position, then (by the first event) the user's sequence.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self._later: list[Callable[[Notifier], None]] = []

    async def signal(self, signal: Signal) -> None:
        """A signal was taken up, or its fate was decided."""
        shown = SignalOut.model_validate(signal).model_dump(mode="json")
        await record(self.session, signal.user_id, EventType.SIGNAL, shown)

    async def order(self, order: Order, exchange: str) -> None:
        """An order is in another state."""
        state = order.state
        shown = OrderOut.model_validate(order).model_dump(mode="json")
        await record(self.session, order.user_id, EventType.ORDER, shown)
        self._later.append(lambda _notifier: metrics.ORDERS.labels(exchange, state).inc())

    def fill(self, order: Order, trade: Trade, exchange: str) -> None:
        """A trade was booked; its events are recorded by who booked it."""
        title = f"{order.side} {plain(trade.quantity)} {order.symbol}"
        text = f"filled at {plain(trade.price)}, fee {plain(trade.fee)}"
        if trade.unvalued_fee:
            text += f" and {plain(trade.unvalued_fee)} {trade.fee_asset}, of which no price is known"
        side = order.side

        def tell(notifier: Notifier) -> None:
            metrics.FILLS.labels(exchange, side).inc()
            notifier.notify("fill", title, text)

        self._later.append(tell)

    def refusal(self, symbol: str, refusal: RefusalReason) -> None:
        """A signal was refused; its event is recorded by who stored the refusal."""

        def tell(notifier: Notifier) -> None:
            metrics.REFUSALS.labels(refusal.rule).inc()
            notifier.notify("refusal", f"{symbol}: signal refused", refusal.reason)

        self._later.append(tell)

    def decided(self, status: SignalStatus) -> None:
        """The fate of a signal was decided."""
        self._later.append(lambda _notifier: metrics.SIGNALS.labels(status).inc())

    def failure(self, title: str, text: str) -> None:
        """Something needs a person's attention."""
        self._later.append(lambda notifier: notifier.notify("failure", title, text))

    def announce(self, notifier: Notifier) -> None:
        """Tells what waits for the commit."""
        for tell in self._later:
            tell(notifier)


class Changing:
    """Makes transactions that tell of their changes."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self.notifier = notifier

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Changes]:
        """Commits at the end, then announces.

        Raises:
            UnavailableError: PostgreSQL does not answer.
        """
        async with self._database.transaction() as session:
            changes = Changes(session)
            yield changes
        changes.announce(self.notifier)
