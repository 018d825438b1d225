"""A trader's desk for tests of the worker: accounts, strategies, queued signals, and what became of them."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select

from tests.conftest import ENCRYPTION_KEY
from tests.forked import BACKEND, WORKER, Forked
from tests.stub_exchange import DEFAULT_KEY, DEFAULT_SECRET
from tradingbot.core.crypto import Envelopes
from tradingbot.core.database import Database
from tradingbot.core.models import utc_now
from tradingbot.core.settings import Settings
from tradingbot.events.models import StoredEvent
from tradingbot.exchanges.credentials import Credentials, seal_credentials
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.orders.models import OPEN_STATES, Fill, Order
from tradingbot.orders.outcome import Steps, no_steps
from tradingbot.outbox import repository as outbox
from tradingbot.outbox.models import OutboxRow, Task
from tradingbot.positions.models import Position
from tradingbot.risk.models import Refusal
from tradingbot.signals.models import Signal
from tradingbot.strategies.models import Strategy
from tradingbot.users import service as users
from tradingbot.worker import main as worker_main

SYMBOL = "BTCUSDT"
PATIENCE = 60.0


@dataclass
class Desk:
    """One user; strategies are made as they are needed."""

    database: Database
    user_id: UUID

    async def account(self, **columns: Any) -> UUID:
        """Makes an account at the stub exchange, or with mode `paper` a paper one."""
        values = {"exchange": "binance", "mode": Mode.TESTNET, "market": "spot"} | columns
        row = ExchangeAccount(id=uuid4(), user_id=self.user_id, name=f"account {uuid4().hex[:6]}", **values)
        if row.mode != Mode.PAPER:
            credentials = Credentials(DEFAULT_KEY, DEFAULT_SECRET)
            seal_credentials(row, credentials, Envelopes(ENCRYPTION_KEY, None))
        async with self.database.transaction() as session:
            session.add(row)
        return row.id

    async def strategy(self, account_id: UUID | None = None, **columns: Any) -> UUID:
        """Makes a strategy; without an account it trades on paper."""
        row = Strategy(
            id=uuid4(),
            user_id=self.user_id,
            exchange_account_id=account_id,
            webhook_token_hash=uuid4().hex,
            **{"name": f"strategy {uuid4().hex[:6]}"} | columns,
        )
        async with self.database.transaction() as session:
            session.add(row)
        return row.id

    async def queue(self, strategy_id: UUID, action: str | None = "buy", **columns: Any) -> UUID:
        """Queues a signal as intake does."""
        values = {"symbol": SYMBOL, "quantity": Decimal("0.01"), "price": Decimal(50000)} | columns
        row = Signal(
            id=uuid4(),
            user_id=self.user_id,
            strategy_id=strategy_id,
            dedup_key=uuid4().hex,
            action=action,
            received_at=values.pop("received_at", utc_now()),
            payload={},
            **values,
        )
        async with self.database.transaction() as session:
            session.add(row)
            await session.flush()
            await outbox.add(session, Task.SIGNAL, strategy_id, row.symbol, signal_id=row.id)
        return row.id

    async def all(self, model: type[Any], *conditions: Any) -> list[Any]:
        """Gives rows of the user, or all of the outbox."""
        statement = select(model)
        if model is not OutboxRow:
            statement = statement.where(model.user_id == self.user_id)
        async with self.database.transaction() as session:
            return list((await session.execute(statement.where(*conditions))).scalars())

    async def signal(self, signal_id: UUID) -> Signal:
        """Gives a signal."""
        (row,) = await self.all(Signal, Signal.id == signal_id)
        return row  # type: ignore[no-any-return]  # `all` is of any model

    async def orders(self) -> list[Order]:
        """Gives the orders, the oldest first."""
        return sorted(await self.all(Order), key=lambda order: order.created_at)

    async def order(self) -> Order:
        """Gives the only order."""
        (row,) = await self.orders()
        return row

    async def refusal(self, signal_id: UUID) -> Refusal:
        """Gives why a signal was refused."""
        (row,) = await self.all(Refusal, Refusal.signal_id == signal_id)
        return row  # type: ignore[no-any-return]  # `all` is of any model

    async def held(self, strategy_id: UUID, symbol: str = SYMBOL) -> Decimal:
        """Gives the position's quantity."""
        rows = await self.all(Position, Position.strategy_id == strategy_id, Position.symbol == symbol)
        return sum((row.quantity for row in rows), Decimal(0))

    async def fills(self) -> list[Fill]:
        """Gives the fills, the oldest first."""
        return sorted(await self.all(Fill), key=lambda fill: fill.filled_at)

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """Gives the data of the user's events of a kind."""
        rows = await self.all(StoredEvent, StoredEvent.type == kind)
        return [row.data for row in sorted(rows, key=lambda row: row.sequence)]

    async def now(self) -> datetime:
        """Gives PostgreSQL's time."""
        async with self.database.transaction() as session:
            return (await session.execute(select(func.now()))).scalar_one()

    async def is_idle(self) -> bool:
        """Tells whether the outbox is empty."""
        return not await self.all(OutboxRow)

    async def is_over(self) -> bool:
        """Tells whether all orders are over."""
        return not await self.all(Order, Order.state.in_(OPEN_STATES))

    async def until_idle(self, seconds: float = PATIENCE) -> None:
        """Waits until the outbox is empty, and fails when for so long no row of it is done.

        How long the work takes as a whole depends on the machine and on what else runs there.
        """
        fewest = len(await self.all(OutboxRow))

        async def fewer() -> bool:
            nonlocal fewest
            before, fewest = fewest, min(fewest, len(await self.all(OutboxRow)))
            return fewest < before

        while fewest:
            await until(fewer, seconds)


async def until(happened: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    """Waits for something, and fails if it does not happen."""
    deadline = time.monotonic() + seconds
    while not await happened():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def open_desk(settings: Settings, email: str = "desk@mail.test") -> AsyncIterator[Desk]:
    """Makes a user, and closes the connections in the end."""
    database = Database(settings)
    async with database.transaction() as session:
        user = await users.get_or_create(session, email)
    yield Desk(database, user.id)
    await database.close()


@dataclass
class WorkerProcess:
    """A running `tradingbot worker`, and its log."""

    process: "subprocess.Popen[bytes] | Forked"
    log: Path

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    async def stop(self, seconds: float = 30) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, seconds)

    async def ended(self) -> int:
        """Waits until it has ended by itself; gives the exit code."""
        return await asyncio.to_thread(self.process.wait, PATIENCE)


def start_worker(arguments: tuple[str, ...], variables: dict[str, str], log: Path) -> WorkerProcess:
    """Starts `tradingbot worker`, or one that kills itself as *arguments* say, with these variables."""
    environment = os.environ | variables
    with log.open("wb") as output, Path(os.devnull).open("rb") as nothing:
        if arguments:
            return WorkerProcess(Forked(WORKER, arguments, environment, (nothing, output, output)), log)
        command = ["tradingbot", "worker"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=BACKEND)
    return WorkerProcess(process, log)


@asynccontextmanager
async def working_here(settings: Settings, steps: Steps = no_steps) -> AsyncIterator[None]:
    """Runs a worker in this process; in the end it stops as at SIGTERM."""
    stopping = asyncio.Event()
    async with worker_main.worker(settings, worker_main.opener, steps) as (loops, jobs):
        patience = settings.worker_shutdown_timeout
        working = asyncio.create_task(worker_main.supervise(loops, jobs, stopping, patience))
        try:
            yield
        finally:
            stopping.set()
            await working


@asynccontextmanager
async def running_worker(
    tmp_path: Path, *arguments: str, wait: bool = True, **variables: str
) -> AsyncIterator[WorkerProcess]:
    """Runs a worker, `arguments` being the step at which it kills itself; stops it in the end."""
    name = uuid4().hex[:8]
    log, alive = tmp_path / f"worker-{name}.log", tmp_path / f"worker-{name}.alive"
    quick = {
        "WORKER_METRICS_PORT": "0",
        "WORKER_HEALTH_FILE": str(alive),
        "WORKER_RETRY_DELAY": "0.2",
        "RECONCILE_INTERVAL": "0.5",
    }
    worker = start_worker(arguments, quick | variables, log)
    process = worker.process
    try:

        async def started() -> bool:
            assert process.poll() is None, log.read_text()
            return alive.exists()

        if wait:
            await until(started)
        yield worker
        if process.poll() is None:
            assert await worker.stop() == 0, log.read_text()
    finally:
        if process.poll() is None:
            worker.kill()
