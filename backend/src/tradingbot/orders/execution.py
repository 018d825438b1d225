"""Works on one row of the outbox: a signal, an order made by hand, a request to cancel."""

from collections.abc import Awaitable
from dataclasses import dataclass
from uuid import UUID

import structlog

from tradingbot.core.crypto import EnvelopeError
from tradingbot.core.errors import UnavailableError
from tradingbot.core.settings import Settings
from tradingbot.exchanges.base import CredentialsError, ExchangeError, NotSentError
from tradingbot.inference.registry import ModelRegistry
from tradingbot.orders import repository
from tradingbot.orders.changes import Changes, Changing
from tradingbot.orders.decision import Decider
from tradingbot.orders.exchange_pool import ExchangePool
from tradingbot.orders.models import OrderState
from tradingbot.orders.outcome import DONE, Later, Outcome, Steps, no_steps
from tradingbot.orders.overtaking import Overtaker
from tradingbot.orders.placing import Placer, fail
from tradingbot.outbox.models import OutboxRow, Task
from tradingbot.positions import service as positions
from tradingbot.risk.sizing import may_close

log = structlog.stdlib.get_logger("tradingbot.orders")


@dataclass(frozen=True)
class Tools:
    """What execution works with."""

    changing: Changing
    exchanges: ExchangePool
    registry: ModelRegistry
    settings: Settings
    steps: Steps = no_steps


class Executor:
    """Brings rows of the outbox to their end. Safe to begin anew at any point, and by several at once."""

    def __init__(self, tools: Tools) -> None:
        self._changing = tools.changing
        self._settings = tools.settings
        self.placer = Placer(tools.changing, tools.exchanges, tools.settings, tools.steps)
        self._overtaker = Overtaker(tools.changing, self.placer)
        self._decider = Decider(
            tools.changing, tools.exchanges, self.placer, tools.registry, tools.settings, tools.steps
        )

    async def work(self, row: OutboxRow) -> Outcome:
        """Return what came of the row; people are told of an exit that does not get out.

        Raises:
            UnavailableError: PostgreSQL is away; nothing is lost by that.
        """
        outcome = await self._work(row)
        attempt = row.attempts + 1
        # With the first attempt, the second, the fourth and so on.
        if isinstance(outcome, Later) and outcome.stuck is not None and attempt & row.attempts == 0:
            text = (
                f"{outcome.reason}. Attempt {attempt}; it goes on until it is done, its order is cancelled,"
                " or the strategy is switched off."
            )
            self._changing.notifier.notify("failure", f"{outcome.stuck}: an exit does not get out", text)
        return outcome

    async def _work(self, row: OutboxRow) -> Outcome:
        try:
            return await self._task(row)
        except UnavailableError:
            raise
        except (CredentialsError, EnvelopeError) as error:
            return await self._give_up(row, f"the exchange account cannot be used: {error}")
        except NotSentError as error:
            reason = f"the exchange did not answer: {error}"
            return Later(reason, error.retry_after, await self._stuck(row))
        except ExchangeError as error:
            return Later(f"the exchange did not answer as it should: {error}", stuck=await self._stuck(row))
        except Exception as error:
            log.exception("work on a row failed", row=row.id, task=row.task, attempts=row.attempts)
            reason = f"internal error: {type(error).__name__}"
            if row.attempts + 1 < self._settings.worker_max_attempts:
                return Later(reason)
            return await self._give_up(row, reason)

    def _task(self, row: OutboxRow) -> Awaitable[Outcome]:
        if row.task == Task.SIGNAL and row.signal_id is not None:
            return self._signal(row, row.signal_id)
        if row.order_id is None:
            raise ValueError("a row of the outbox has nothing to work on")
        if row.task == Task.CANCEL:
            return self._cancel(row.order_id)
        return self._order(row, row.order_id)

    async def _signal(self, row: OutboxRow, signal_id: UUID) -> Outcome:
        decision = await self._decider.decide(row, signal_id)
        if isinstance(decision, Later):
            return decision
        return DONE if decision is None else await self._place(row, decision)

    async def _order(self, row: OutboxRow, order_id: UUID) -> Outcome:
        instead = await self._overtaker.make_way(order_id)
        return await self._place(row, order_id) if instead is None else instead

    async def _place(self, row: OutboxRow, order_id: UUID) -> Outcome:
        outcome = await self.placer.place(order_id, row.created_at)
        return outcome if isinstance(outcome, Later) else await self.placer.finish(order_id)

    async def _cancel(self, order_id: UUID) -> Outcome:
        try:
            return await self.placer.cancel(order_id)
        except (ExchangeError, EnvelopeError) as error:
            # Not to hold up the strategy's other rows: the reconcile loop goes on with it.
            log.warning("an order is not cancelled yet", order_id=str(order_id), reason=str(error))
            return DONE

    async def _stuck(self, row: OutboxRow) -> str | None:
        """Return the symbol of a row that may close what is held."""
        async with self._changing.transaction() as changes:
            session = changes.session
            order = None
            if row.order_id is not None:
                order = await repository.find(session, row.order_id)
            elif row.signal_id is not None:
                order = await repository.find_of_signal(session, row.signal_id)
            if order is None:
                return await _exit_of(changes, row)
        return await self.placer.stuck(order)

    async def _give_up(self, row: OutboxRow, reason: str) -> Outcome:
        """Give up where nothing was sent, but for exits; what may be at the exchange is never given up."""
        async with self._changing.transaction() as changes:
            session = changes.session
            order_id = row.order_id
            if row.signal_id is not None:
                order = await repository.find_of_signal(session, row.signal_id)
                order_id = None if order is None else order.id
                if order is None:
                    symbol = await _exit_of(changes, row)
                    if symbol is not None:
                        return Later(reason, stuck=symbol)
                    await fail(changes, row.signal_id, reason)
                    return DONE
            placement = None if order_id is None else await repository.placement(session, order_id)
        if placement is None:
            return DONE
        stuck = await self.placer.stuck(placement.order)
        if stuck or placement.order.state != OrderState.NEW:
            return Later(reason, stuck=stuck)
        given_up = await self.placer.give_up(placement.order, placement.account, reason)
        return DONE if given_up else Later(reason)


async def _exit_of(changes: Changes, row: OutboxRow) -> str | None:
    """Return the symbol of a signal that may close what is held, None of any other."""
    if row.signal_id is None:
        return None
    case = await repository.case(changes.session, row.signal_id, row.created_at)
    if case is None:
        return None
    symbol = case.signal.symbol
    held = await positions.held_quantity(changes.session, row.strategy_id, symbol)
    expected = await positions.expected_quantity(changes.session, row.strategy_id, symbol)
    return symbol if any(may_close(case.signal, quantity) for quantity in (held, expected)) else None
