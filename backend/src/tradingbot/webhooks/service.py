"""Stores an alert once."""

import hmac
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from tradingbot.core.errors import ForbiddenError, NotFoundError
from tradingbot.core.models import utc_now
from tradingbot.core.tokens import TokenKind, hash_token, is_well_formed
from tradingbot.signals import repository as signals
from tradingbot.signals.schemas import SignalOut
from tradingbot.strategies import repository as strategies
from tradingbot.strategies.repository import StrategyRef
from tradingbot.webhooks.deduplication import DedupKey, dedup_key
from tradingbot.webhooks.parsing import ParsedAlert
from tradingbot.webhooks.schemas import Receipt


class Outcome(NamedTuple):
    """What to answer, whose alert it was, and the signal if it is a new one."""

    receipt: Receipt
    strategy: StrategyRef
    signal: SignalOut | None


def check_secret(given: str | None, expected: str) -> None:
    """Compares in constant time; an alert without a secret is let through: the token in its address is one.

    Raises:
        ForbiddenError: a wrong secret.
    """
    if given is not None and not hmac.compare_digest(given.encode(), expected.encode()):
        raise ForbiddenError("The secret in the alert is wrong.")


def require_well_formed(token: str) -> None:
    """Refuses, without asking the database, what cannot be a token of ours.

    Raises:
        NotFoundError: as for a token that nobody has.
    """
    if not is_well_formed(token, TokenKind.WEBHOOK):
        raise _unknown()


async def receive(
    session: AsyncSession, token: str, parsed: ParsedAlert, secret_key: str, window: int
) -> Outcome:
    """Stores the alert for the strategy with this token, unless it is there already.

    Raises:
        NotFoundError: no active strategy has the token.
    """
    strategy = await strategies.find_by_token_hash(session, hash_token(token, secret_key))
    if strategy is None:
        raise _unknown()
    received_at = utc_now()
    key = dedup_key(parsed.alert, parsed.payload, received_at, window)
    if key.lock is not None:
        await signals.lock_key(session, strategy.id, key.lock)
        earlier = await signals.find_by_key(session, strategy.id, key.recent, key.since)
        if earlier is not None:
            return Outcome(Receipt(id=earlier, status="duplicate"), strategy, None)
    values = _columns(parsed, strategy, key) | {"received_at": received_at}
    signal_id = await signals.insert_once(session, values)
    if signal_id is None:
        return Outcome(await _duplicate(session, strategy, key), strategy, None)
    signal = SignalOut.model_validate(values | {"id": signal_id})
    return Outcome(Receipt(id=signal_id, status="accepted"), strategy, signal)


async def _duplicate(session: AsyncSession, strategy: StrategyRef, key: DedupKey) -> Receipt:
    earlier = await signals.find_by_key(session, strategy.id, [key.key])
    if earlier is None:
        raise RuntimeError("a signal conflicts with one that cannot be seen")
    return Receipt(id=earlier, status="duplicate")


def _columns(parsed: ParsedAlert, strategy: StrategyRef, key: DedupKey) -> dict[str, Any]:
    alert = parsed.alert
    return {
        "user_id": strategy.user_id,
        "strategy_id": strategy.id,
        "dedup_key": key.key,
        "symbol": alert.symbol,
        "action": alert.action,
        "market_position": alert.market_position,
        "position_size": alert.position_size,
        "quantity": alert.quantity,
        "price": alert.price,
        "order_id": alert.order_id,
        "comment": alert.comment,
        "sent_at": alert.timenow,
        "payload": parsed.payload,
    }


def _unknown() -> NotFoundError:
    return NotFoundError("No active strategy has this webhook address.")
