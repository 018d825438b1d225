"""Kill switches: for one strategy, for all of a user's, for everybody's."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.errors import NotFoundError
from tradingbot.core.pagination import Cursor, encode_cursor
from tradingbot.events.service import EventType, record
from tradingbot.risk import halts_repository as repository
from tradingbot.risk.halts_schemas import HaltOut, HaltPage, Reach
from tradingbot.risk.models import Halt


class Target(NamedTuple):
    """What is halted: one strategy of a user, all of theirs (no strategy), or everybody's (no user)."""

    user_id: UUID | None = None
    strategy_id: UUID | None = None

    @property
    def reach(self) -> Reach:
        """How far a halt of this reaches."""
        if self.user_id is None:
            return Reach.EVERYBODY
        return Reach.ALL if self.strategy_id is None else Reach.STRATEGY


EVERYBODY = Target()


async def find(session: AsyncSession, user_id: UUID, strategy_id: UUID) -> Halt | None:
    """Gives a halt that keeps this strategy from trading, the farthest reaching one if there are several."""
    return await repository.find_for(session, user_id, strategy_id)


async def list_page(session: AsyncSession, user_id: UUID, limit: int, after: Cursor | None) -> HaltPage:
    """Gives one page of the halts that concern the user."""
    rows = await repository.list_for(session, user_id, limit + 1, after)
    items = [HaltOut.of(halt) for halt in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return HaltPage(
        items=items, next_cursor=encode_cursor(Cursor(last.created_at, last.id)) if last else None
    )


async def switch_on(
    session: AsyncSession, target: Target, reason: str | None, *, flatten: bool = False
) -> HaltOut:
    """Halts; a halt that is on already gets the new reason, and `flatten` if that is asked for.

    Raises:
        NotFoundError: the user has no such strategy.
    """
    await _require_strategy(session, target)
    halt = await repository.insert(session, target.user_id, target.strategy_id, reason, flatten)
    if halt is None:
        halt = await repository.change(session, target.user_id, target.strategy_id, reason, flatten)
        if halt is None:
            # It has been switched off in between.
            return await switch_on(session, target, reason, flatten=flatten)
    shown = HaltOut.of(halt)
    await _record(session, target, {**shown.model_dump(mode="json"), "halted": True})
    return shown


async def switch_off(session: AsyncSession, target: Target) -> bool:
    """Lets the target trade again, as far as no other halt forbids it; tells whether it was halted.

    Raises:
        NotFoundError: the user has no such strategy.
    """
    await _require_strategy(session, target)
    halt = await repository.remove(session, target.user_id, target.strategy_id)
    if halt is None:
        return False
    await _record(session, target, {**HaltOut.of(halt).model_dump(mode="json"), "halted": False})
    return True


async def _require_strategy(session: AsyncSession, target: Target) -> None:
    user_id, strategy_id = target
    if user_id is None or strategy_id is None:
        return
    if not await repository.owns_strategy(session, user_id, strategy_id):
        raise NotFoundError("You have no such strategy.")


async def _record(session: AsyncSession, target: Target, data: dict[str, object]) -> None:
    users = [target.user_id] if target.user_id else await repository.active_users(session)
    for user_id in users:
        await record(session, user_id, EventType.HALT, data)
