"""An exchange within the process that misbehaves by a script, and an executor that works with it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from tests.desk import Desk
from tradingbot.core.database import Database
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import (
    CredentialsError,
    MarketLimits,
    NotSentError,
    OrderReport,
    OrderRequest,
    OutcomeUnknownError,
    RejectedError,
    Trade,
)
from tradingbot.inference.registry import ModelRegistry
from tradingbot.notifications.notifier import Kind
from tradingbot.orders.changes import Changing
from tradingbot.orders.exchange_pool import ExchangePool
from tradingbot.orders.execution import Executor, Tools
from tradingbot.orders.models import OrderState
from tradingbot.orders.outcome import no_steps
from tradingbot.orders.reconcile import Reconciler
from tradingbot.worker.heartbeat import Heartbeat
from tradingbot.worker.loop import WorkLoop

ERRORS = {
    "rejected": RejectedError("Account has insufficient balance."),
    "not_sent": NotSentError("connection refused", 0.01),
    "credentials": CredentialsError("Invalid API key."),
    "nonsense": RuntimeError("the answer has no head"),
}


@dataclass
class FakeExchange:
    """Fills every order at once, unless `script` says otherwise: one word for each call of `place`.

    `lost`: takes the order, and the answer is lost. `dropped`: does not take it, nor answers. `open`: takes
    it and fills nothing. `reported`: answers that it is rejected, `reported_lost`: that is found. `partial`:
    fills half. `hang`: takes it and never answers. Others: see ERRORS.
    """

    settle_time: float = 0.3
    script: deque[str] = field(default_factory=deque)
    # The same for `find`, `cancel`, `holding`, and for `price`.
    questions: deque[str] = field(default_factory=deque)
    prices: deque[str] = field(default_factory=deque)
    sent: list[OrderRequest] = field(default_factory=list)
    books: dict[str, OrderReport] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    last_price: Decimal | None = Decimal(50000)
    holds: Decimal | None = None
    worth: Decimal | None = Decimal(10000)
    least: Decimal = Decimal(0)
    shorts: bool = True
    closed: int = 0

    async def place(self, order: OrderRequest) -> OrderReport:
        """Does as the script says."""
        self.sent.append(order)
        word = self.script.popleft() if self.script else "fill"
        if word in ERRORS:
            raise ERRORS[word]
        if word.startswith("reported"):
            report = OrderReport(order.client_order_id, "x0", OrderState.REJECTED, (), "it says so")
            self.books[order.client_order_id] = report
            if word == "reported_lost":
                raise OutcomeUnknownError("time-out")
            return report
        if word == "dropped":
            raise OutcomeUnknownError("the connection was closed")
        self.taken.append(order.client_order_id)
        self._book(order, {"open": Decimal(0), "partial": order.quantity / 2}.get(word, order.quantity))
        if word == "lost":
            raise OutcomeUnknownError("time-out")
        if word == "hang":
            await asyncio.Event().wait()
        return self.books[order.client_order_id]

    def fill(self, name: str, quantity: Decimal, state: OrderState = OrderState.FILLED) -> None:
        """Fills more of an order."""
        report = self.books[name]
        trade = self._trade(f"{name}-{len(report.trades) + 1}", quantity)
        self.books[name] = OrderReport(name, report.exchange_order_id, state, (*report.trades, trade))

    async def find(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Looks into the books."""
        self._question(self.questions)
        return self.books.get(client_order_id)

    async def cancel(self, client_order_id: str, symbol: str) -> OrderReport | None:
        """Cancels what is open."""
        self._question(self.questions)
        self.cancelled.append(client_order_id)
        report = self.books.get(client_order_id)
        if report is not None and report.state in (OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED):
            report = OrderReport(
                client_order_id, report.exchange_order_id, OrderState.CANCELLED, report.trades
            )
            self.books[client_order_id] = report
        return report

    async def holding(self, symbol: str) -> Decimal | None:
        """Gives `holds`."""
        self._question(self.questions)
        return self.holds

    async def asset(self, symbol: str) -> str:
        """Return the symbol."""
        return symbol

    async def price(self, symbol: str) -> Decimal | None:
        """Gives `last_price`."""
        self._question(self.prices)
        return self.last_price

    async def equity(self, symbol: str) -> Decimal | None:
        """Gives `worth`."""
        return self.worth

    async def limits(self, symbol: str) -> MarketLimits:
        """Return `least` and `shorts`."""
        return MarketLimits(min_quantity=self.least, shorts=self.shorts)

    async def check_credentials(self) -> None:
        """Likes all."""

    async def close(self) -> None:
        """Counts."""
        self.closed += 1

    def _question(self, script: deque[str]) -> None:
        word = script.popleft() if script else ""
        if word in ERRORS:
            raise ERRORS[word]

    def _book(self, order: OrderRequest, filled: Decimal) -> None:
        name = order.client_order_id
        state = OrderState.FILLED if filled == order.quantity else OrderState.PARTIALLY_FILLED
        trades = (self._trade(f"{name}-1", filled),) if filled else ()
        self.books[name] = OrderReport(name, f"x{len(self.taken)}", state if filled else _OPEN, trades)

    def _trade(self, name: str, quantity: Decimal) -> Trade:
        return Trade(name, quantity, self.last_price or Decimal(1), Decimal(0), None, utc_now())


_OPEN = OrderState.SUBMITTED


@dataclass
class Told:
    """A notifier that remembers."""

    messages: list[tuple[Kind, str, str]] = field(default_factory=list)

    def notify(self, kind: Kind, title: str, text: str) -> None:
        """Remembers."""
        self.messages.append((kind, title, text))

    def kinds(self) -> list[Kind]:
        """What kinds there were."""
        return [kind for kind, _title, _text in self.messages]

    def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class Bench:
    """A worker's insides, one turn at a time."""

    exchange: FakeExchange
    exchanges: ExchangePool
    told: Told
    loop: WorkLoop
    executor: Executor
    reconciler: Reconciler
    desk: Desk

    async def work(self, seconds: float = 60) -> None:
        """Works until the outbox is empty."""
        async with asyncio.timeout(seconds):
            while not await self.desk.is_idle():
                if not await self.loop.turn():
                    await asyncio.sleep(0.02)

    async def turn(self) -> bool:
        """Works on one row that is due."""
        return await self.loop.turn()


@asynccontextmanager
async def open_bench(
    desk: Desk, settings: Settings, exchange: FakeExchange | None = None
) -> AsyncIterator[Bench]:
    """Puts a worker together around a fake exchange."""
    exchange, told = exchange or FakeExchange(), Told()
    database, claims = Database(settings), Database(settings)
    exchanges = ExchangePool(lambda _account: exchange, settings.exchange_timeout)
    changing = Changing(database, told)
    executor = Executor(Tools(changing, exchanges, ModelRegistry(settings.models_dir), settings))
    heartbeat = Heartbeat(settings.worker_health_file)
    loop = WorkLoop(claims, executor, heartbeat, asyncio.Event(), settings, no_steps)
    reconciler = Reconciler(changing, Changing(claims, told), exchanges, executor.placer, settings)
    yield Bench(exchange, exchanges, told, loop, executor, reconciler, desk)
    await exchanges.close()
    await claims.close()
    await database.close()
