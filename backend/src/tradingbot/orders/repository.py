"""Queries of those who place orders and follow them. States change only by `move`."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, Select, cast, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tradingbot.core.symbols import in_market, market_in, market_of
from tradingbot.exchanges.models import ExchangeAccount, Mode
from tradingbot.orders.client_order_id import PART
from tradingbot.orders.models import OPEN_STATES, Order, OrderState
from tradingbot.orders.states import sources
from tradingbot.outbox.models import OutboxRow, Priority
from tradingbot.positions.models import AccountHolding, Position
from tradingbot.signals.models import MarketPosition, Signal, SignalStatus
from tradingbot.strategies.models import Strategy
from tradingbot.users.models import User

# Sent, and not known to be over.
_UNDER_WAY = (OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED, OrderState.UNKNOWN)
# Rows behind a signal's own. Where a newer target is further away the older one is traded, too.
_LOOK_AHEAD = 100


class Case(NamedTuple):
    """A signal with what has to be known to decide on it; `age` in seconds, by PostgreSQL's clock."""

    signal: Signal
    strategy: Strategy
    user_active: bool
    age: float
    now: datetime


class Placement(NamedTuple):
    """An order with all that has to be known to place it. Ages are by PostgreSQL's clock, not by ours."""

    order: Order
    account: ExchangeAccount
    strategy: Strategy
    signal: Signal | None
    user_active: bool
    # Seconds since what caused it was sent to us, and since it was last sent to the exchange.
    age: float
    sent_ago: float | None


class MarketBooked(NamedTuple):
    """What strategies hold in a market by the book, and whether orders are under way there."""

    name: str
    quantity: Decimal
    is_busy: bool


async def take_signal(session: AsyncSession, signal_id: UUID) -> bool:
    """Notes that a worker has taken the signal; tells whether it is the first time."""
    statement = update(Signal).where(Signal.id == signal_id, Signal.taken_at.is_(None))
    statement = statement.values(taken_at=func.clock_timestamp())
    return (await session.execute(statement.returning(Signal.id))).first() is not None


async def case(
    session: AsyncSession, signal_id: UUID, queued_at: datetime, *, keep: bool = False
) -> Case | None:
    """Gives the signal and what belongs to it; None if it is gone.

    Its age is counted from when it was queued, or sent, if that was earlier by the sender's account. With
    `keep` the strategy stays as it is until the transaction ends.
    """
    now = func.clock_timestamp()
    age = func.extract("epoch", now - func.least(Signal.sent_at, queued_at))
    statement = (
        select(Signal, Strategy, User.is_active, age, now)
        .join(Strategy, Strategy.id == Signal.strategy_id)
        .join(User, User.id == Signal.user_id)
        .where(Signal.id == signal_id)
        .execution_options(populate_existing=True)
    )
    if keep:
        statement = statement.with_for_update(read=True, of=Strategy)
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    signal, strategy, active, age, moment = row
    return Case(signal, strategy, active, float(age), moment)


async def has_newer_target(
    session: AsyncSession, signal: Signal, row_id: int, *conditions: ColumnElement[bool]
) -> bool:
    """Return whether a target position for the signal's market is among the rows next behind its own."""
    return (await session.execute(_newer_targets(signal, row_id, *conditions))).first() is not None


async def has_decided_newer_target(session: AsyncSession, signal: Signal, sent_at: datetime) -> bool:
    """Return whether a target that was sent later than the signal, at `sent_at`, is done already."""
    statement = select(Signal.id).where(
        # The index by time begins with the user, and what was sent later was received later.
        Signal.user_id == signal.user_id,
        Signal.received_at > sent_at,
        Signal.strategy_id == signal.strategy_id,
        Signal.sent_at > sent_at,
        Signal.status.in_((SignalStatus.ORDERED, SignalStatus.NOTHING_TO_DO)),
        Signal.market_position.is_not(None),
        or_(~Signal.reduce_only, Signal.market_position == MarketPosition.FLAT),
        in_market(Signal.symbol, signal.symbol),
    )
    return (await session.execute(statement.limit(1))).first() is not None


def _newer_targets(signal: Signal, row_id: int, *conditions: ColumnElement[bool]) -> Select[Any]:
    # Plain buys and sells are no targets: behind a flood of them a whole queue would be read for each.
    behind = (
        select(OutboxRow.signal_id)
        .where(
            OutboxRow.strategy_id == signal.strategy_id,
            OutboxRow.priority == Priority.NORMAL,
            OutboxRow.symbol.in_(("", market_of(signal.symbol))),
            OutboxRow.id > row_id,
        )
        .limit(_LOOK_AHEAD)
        .subquery()
    )
    # A value for each row: with EXISTS or a join the planner may read all signals once.
    target = (
        select(Signal.id)
        .where(
            Signal.id == behind.c.signal_id,
            in_market(Signal.symbol, signal.symbol),
            # One that only closes is less than a target, unless it closes all.
            or_(~Signal.reduce_only, Signal.market_position == MarketPosition.FLAT),
            Signal.market_position.is_not(None),
            *conditions,
        )
        .scalar_subquery()
    )
    return select(behind.c.signal_id).where(target.is_not(None)).limit(1)


async def decide_signal(
    session: AsyncSession, signal_id: UUID, status: SignalStatus, reason: str | None = None
) -> Signal | None:
    """Stores what became of the signal."""
    statement = (
        update(Signal)
        .where(Signal.id == signal_id)
        .values(
            status=status,
            status_reason=None if reason is None else reason[:500],
            processed_at=func.clock_timestamp(),
        )
        .returning(Signal)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def insert_once(session: AsyncSession, values: dict[str, Any]) -> Order | None:
    """Stores an order; gives None if its cause has one."""
    statement = insert(Order).values(values).on_conflict_do_nothing().returning(Order)
    return (await session.execute(statement)).scalar_one_or_none()


async def find_by_client_order_id(
    session: AsyncSession, user_id: UUID, name: str, *, lock: bool = False
) -> Order | None:
    """Return the user's order of this name; with `lock` nobody else changes it in the meantime."""
    statement = select(Order).where(Order.user_id == user_id, Order.client_order_id == name)
    if lock:
        statement = statement.with_for_update()
    return (await session.execute(statement)).scalar_one_or_none()


async def find_of_signal(session: AsyncSession, signal_id: UUID) -> Order | None:
    """Gives the order that the signal led to."""
    return (await session.execute(select(Order).where(Order.signal_id == signal_id))).scalar_one_or_none()


async def find(session: AsyncSession, order_id: UUID) -> Order | None:
    """Gives the order."""
    return (await session.execute(select(Order).where(Order.id == order_id))).scalar_one_or_none()


async def find_of_user(session: AsyncSession, user_id: UUID, order_id: UUID) -> Order | None:
    """Gives the order, if it is the user's."""
    statement = select(Order).where(Order.user_id == user_id, Order.id == order_id)
    return (await session.execute(statement)).scalar_one_or_none()


async def parts(session: AsyncSession, first: Order) -> Sequence[Order]:
    """Return the orders that go on with what `first` closes, the newest last."""
    statement = select(Order).where(
        Order.strategy_id == first.strategy_id,
        Order.created_at >= first.created_at,
        Order.client_order_id.startswith(first.client_order_id + PART),
    )
    statement = statement.order_by(func.length(Order.client_order_id), Order.client_order_id)
    return (await session.execute(statement.execution_options(populate_existing=True))).scalars().all()


async def lock(session: AsyncSession, order_id: UUID) -> Order | None:
    """Gives the order as it is stored, locked until the transaction ends."""
    statement = select(Order).where(Order.id == order_id).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


async def placement(
    session: AsyncSession, order_id: UUID, queued_at: datetime | None = None
) -> Placement | None:
    """Gives the order and what belongs to it; None if it is gone."""
    now = func.clock_timestamp()
    # LEAST ignores what is null.
    caused_at = func.least(Signal.sent_at, Order.created_at, cast(queued_at, DateTime(timezone=True)))
    statement = (
        select(
            Order,
            ExchangeAccount,
            Strategy,
            Signal,
            User.is_active,
            func.extract("epoch", now - caused_at),
            func.extract("epoch", now - Order.submitted_at),
        )
        .join(ExchangeAccount, ExchangeAccount.id == Order.exchange_account_id)
        .join(Strategy, Strategy.id == Order.strategy_id)
        .join(User, User.id == Order.user_id)
        .outerjoin(Signal, Signal.id == Order.signal_id)
        .where(Order.id == order_id)
        .execution_options(populate_existing=True)
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    order, account, strategy, signal, active, age, sent_ago = row
    return Placement(
        order, account, strategy, signal, active, float(age), None if sent_ago is None else float(sent_ago)
    )


async def move(
    session: AsyncSession,
    order_id: UUID,
    target: OrderState,
    *conditions: ColumnElement[bool],
    **values: Any,
) -> Order | None:
    """Moves the order to `target` if a way leads there and the conditions hold; gives None if not."""
    statement = (
        update(Order)
        .where(Order.id == order_id, Order.state.in_(sources(target)), *conditions)
        .values(state=target, updated_at=func.clock_timestamp(), **values)
        .returning(Order)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def resize(session: AsyncSession, order_id: UUID, quantity: Decimal) -> Order | None:
    """Make of an order that was not sent one that closes so much."""
    statement = (
        update(Order)
        .where(Order.id == order_id, is_new())
        .values(quantity=quantity, reduce_only=True, updated_at=func.clock_timestamp())
        .returning(Order)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalar_one_or_none()


def is_new() -> ColumnElement[bool]:
    """The order was not sent."""
    return Order.state == OrderState.NEW


def is_attempt(number: int) -> ColumnElement[bool]:
    """The order was sent so many times: it is still the attempt that the caller knows of."""
    return Order.attempts == number


def is_not_accepted() -> ColumnElement[bool]:
    """The exchange has not said that it has the order."""
    return Order.exchange_order_id.is_(None)


async def submit(session: AsyncSession, order_id: UUID, attempts: int) -> Order | None:
    """Moves a new order to submitted, for the next attempt: the fence that lets only one process send it."""
    return await move(
        session,
        order_id,
        OrderState.SUBMITTED,
        is_new(),
        is_attempt(attempts),
        Order.cancel_requested_at.is_(None),
        attempts=Order.attempts + 1,
        submitted_at=func.clock_timestamp(),
        reason=None,
    )


async def accept(session: AsyncSession, order_id: UUID, exchange_order_id: str) -> None:
    """Notes that the exchange has the order, and its name there."""
    await session.execute(
        update(Order)
        .where(Order.id == order_id, Order.exchange_order_id.is_(None))
        .values(exchange_order_id=exchange_order_id)
    )


async def request_cancel(session: AsyncSession, order_id: UUID) -> Order | None:
    """Notes that an open order shall be cancelled; gives None if it is over or noted already."""
    statement = (
        update(Order)
        .where(Order.id == order_id, Order.state.in_(OPEN_STATES), Order.cancel_requested_at.is_(None))
        .values(cancel_requested_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
        .returning(Order)
        .execution_options(populate_existing=True)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def under_way(session: AsyncSession, strategy_id: UUID, symbol: str) -> Sequence[UUID]:
    """Return the strategy's orders in the market that were sent and are not known to be over."""
    statement = select(Order.id).where(
        Order.strategy_id == strategy_id, in_market(Order.symbol, symbol), Order.state.in_(_UNDER_WAY)
    )
    return (await session.execute(statement.order_by(Order.created_at))).scalars().all()


async def open_in_market(session: AsyncSession, order: Order) -> Sequence[Order]:
    """Return the other open orders of the order's strategy in its market, the oldest first."""
    statement = select(Order).where(
        Order.strategy_id == order.strategy_id,
        in_market(Order.symbol, order.symbol),
        Order.state.in_(OPEN_STATES),
        Order.id != order.id,
    )
    return (await session.execute(statement.order_by(Order.created_at))).scalars().all()


async def open_exits(session: AsyncSession, strategy_id: UUID, symbol: str) -> Sequence[Order]:
    """Return the strategy's open orders that only close, but those that shall be cancelled."""
    statement = select(Order).where(
        Order.strategy_id == strategy_id,
        in_market(Order.symbol, symbol),
        Order.state.in_(OPEN_STATES),
        Order.reduce_only,
        Order.cancel_requested_at.is_(None),
    )
    return (await session.execute(statement)).scalars().all()


async def exposure(session: AsyncSession, strategy_id: UUID, symbol: str) -> tuple[Decimal, bool]:
    """Return what the strategy holds in the market, and whether it has open orders in it."""
    held = select(Position.quantity).where(
        Position.strategy_id == strategy_id, in_market(Position.symbol, symbol)
    )
    orders = exists().where(
        Order.strategy_id == strategy_id, in_market(Order.symbol, symbol), Order.state.in_(OPEN_STATES)
    )
    quantity, has_orders = (await session.execute(select(held.scalar_subquery(), orders))).one()
    return quantity or Decimal(0), has_orders


async def is_shared(session: AsyncSession, account_id: UUID, strategy_id: UUID, symbol: str) -> bool:
    """Return whether another strategy of the account holds something in the market, or has open orders."""
    holds = exists().where(
        Position.strategy_id == Strategy.id, in_market(Position.symbol, symbol), ~Position.is_flat
    )
    has_orders = exists().where(
        Order.strategy_id == Strategy.id, in_market(Order.symbol, symbol), Order.state.in_(OPEN_STATES)
    )
    statement = select(Strategy.id).where(
        Strategy.exchange_account_id == account_id, Strategy.id != strategy_id, or_(holds, has_orders)
    )
    return (await session.execute(statement.limit(1))).first() is not None


async def accounts_to_reconcile(session: AsyncSession, seconds: float) -> Sequence[ExchangeAccount]:
    """Gives the accounts with open orders, or with ones cancelled within the last `seconds`."""
    recent = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    with_orders = select(Order.exchange_account_id).where(
        or_(
            Order.state.in_(OPEN_STATES),
            (Order.state == OrderState.CANCELLED) & (Order.updated_at > recent) & Order.settled_at.is_(None),
        )
    )
    statement = select(ExchangeAccount).where(ExchangeAccount.id.in_(with_orders))
    return (await session.execute(statement)).scalars().all()


async def to_reconcile(
    session: AsyncSession, account_id: UUID, quiet: float, seconds: float, limit: int
) -> Sequence[UUID]:
    """Gives an account's orders to ask about: sent and unchanged for `quiet` seconds, or just cancelled.

    Where an order is cancelled and filled at the same time, its last trades may come later than its end.
    """
    now = func.now()
    statement = (
        select(Order.id)
        .where(
            Order.exchange_account_id == account_id,
            or_(
                Order.state.in_(_UNDER_WAY)
                & (
                    (Order.updated_at < now - func.make_interval(0, 0, 0, 0, 0, 0, quiet))
                    | Order.cancel_requested_at.is_not(None)
                ),
                (Order.state == OrderState.CANCELLED)
                & (Order.updated_at > now - func.make_interval(0, 0, 0, 0, 0, 0, seconds))
                & (Order.attempts > 0)
                & Order.settled_at.is_(None),
            ),
        )
        .order_by(Order.updated_at)
        .limit(limit)
    )
    return (await session.execute(statement)).scalars().all()


async def requeue_forgotten(session: AsyncSession, seconds: float) -> Sequence[UUID]:
    """Queues open orders that nobody would come back to: not known to the exchange, and not in the outbox."""
    # The row of a part is that of the first order, or one that was queued here.
    first = aliased(Order)
    name = Order.client_order_id
    queued = (
        select(first.id)
        .join(OutboxRow, or_(OutboxRow.order_id == first.id, OutboxRow.signal_id == first.signal_id))
        .where(first.user_id == Order.user_id)
        .where(first.client_order_id.in_((name, func.split_part(name, PART, 1))))
        .correlate(Order)
        .exists()
    )
    forgotten = select(Order.strategy_id, market_in(Order.symbol), Order.id, text("'order'")).where(
        Order.state.in_((OrderState.NEW, OrderState.SUBMITTED, OrderState.UNKNOWN)),
        Order.exchange_order_id.is_(None),
        Order.updated_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds),
        ~queued,
    )
    statement = insert(OutboxRow).from_select(["strategy_id", "symbol", "order_id", "task"], forgotten)
    return [row for row in (await session.execute(statement.returning(OutboxRow.order_id))).scalars() if row]


async def try_lock_account(session: AsyncSession, account_id: UUID) -> bool:
    """Lets one transaction at a time reconcile the account."""
    key = func.hashtextextended(f"reconcile:{account_id}", 0)
    return bool((await session.execute(select(func.pg_try_advisory_xact_lock(key)))).scalar_one())


async def accounts_with_positions(session: AsyncSession) -> Sequence[ExchangeAccount]:
    """Return the accounts of real exchanges that have traded, or that differ from the book."""
    held = (
        select(Strategy.exchange_account_id)
        .join(Position, Position.strategy_id == Strategy.id)
        .where(Strategy.exchange_account_id.is_not(None))
    )
    differs = select(AccountHolding.exchange_account_id).where(AccountHolding.differs_since.is_not(None))
    statement = select(ExchangeAccount).where(
        ExchangeAccount.mode != Mode.PAPER,
        or_(ExchangeAccount.id.in_(held), ExchangeAccount.id.in_(differs)),
    )
    return (await session.execute(statement)).scalars().all()


async def markets_of_account(session: AsyncSession, account_id: UUID) -> Sequence[MarketBooked]:
    """Return what the strategies on the account hold by market; also where nobody is and it differs."""
    market = market_in(Position.symbol)
    held = (
        select(market, func.sum(Position.quantity))
        .join(Strategy, Strategy.id == Position.strategy_id)
        .where(Strategy.exchange_account_id == account_id)
        .group_by(market)
    )
    differing = select(AccountHolding.market).where(
        AccountHolding.exchange_account_id == account_id, AccountHolding.differs_since.is_not(None)
    )
    busy = select(market_in(Order.symbol)).where(
        Order.exchange_account_id == account_id, Order.state.in_(_UNDER_WAY)
    )
    quantities = dict.fromkeys((await session.execute(differing)).scalars(), Decimal(0))
    for name, quantity in await session.execute(held):
        quantities[name] = quantity
    under_way = set((await session.execute(busy)).scalars())
    return [MarketBooked(name, quantity, name in under_way) for name, quantity in quantities.items()]
