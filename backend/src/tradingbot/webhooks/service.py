"""From an alert to the answer that its sender gets."""

import hmac
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from tradingbot.core import strict_json
from tradingbot.core.errors import ForbiddenError, NotFoundError, UnprocessableError
from tradingbot.core.settings import Settings
from tradingbot.core.tokens import TokenKind, hash_token, is_well_formed
from tradingbot.webhooks.deduplication import dedup_key
from tradingbot.webhooks.intake import Intake
from tradingbot.webhooks.parsing import ParsedAlert
from tradingbot.webhooks.repository import NewAlert, Verdict
from tradingbot.webhooks.schemas import Receipt
from tradingbot.webhooks.tidying import LABELS

log = structlog.stdlib.get_logger("tradingbot.webhooks")

_WRONG = "The secret in the alert is wrong."
_MISSING = 'The strategy has a secret and the alert has none: put it in as "secret", or delete it.'


class StaleError(UnprocessableError):
    """The alert is from too long ago, or from the future."""


def require_well_formed(token: str) -> None:
    """Refuses, without asking the database, what cannot be a token of ours.

    Raises:
        NotFoundError: as for a token that nobody has.
    """
    if not is_well_formed(token, TokenKind.WEBHOOK):
        raise _unknown()


async def receive(
    intake: Intake, token: str, parsed: ParsedAlert, received_at: datetime, settings: Settings
) -> Receipt:
    """Stores the alert for the strategy with this token, unless it is there already.

    Raises:
        NotFoundError: no active strategy has the token.
        ForbiddenError: the alert's secret is neither the strategy's nor WEBHOOK_SECRET, or it has none and
            the strategy has one.
        StaleError: it was sent too long ago and is not stored yet, or will be sent in the future.
        UnavailableError: PostgreSQL is away or slow.
    """
    sent_at = parsed.alert.timenow
    if sent_at is not None and (sent_at - received_at).total_seconds() > settings.webhook_max_skew:
        ahead = (sent_at - received_at).total_seconds()
        raise StaleError(f"timenow is {ahead:.0f} s in the future: is a clock wrong, the sender's or ours?")
    alert = _to_store(token, parsed, received_at, settings)
    return _answer(alert, await intake.store(alert), parsed.notes)


def _to_store(token: str, parsed: ParsedAlert, received_at: datetime, settings: Settings) -> NewAlert:
    key = settings.secret_key.get_secret_value()
    alert = parsed.alert
    # Both comparisons tell nothing by the time they take: this one is made for that; the database compares
    # keyed hashes, and nobody without the key can choose how much of a hash is right.
    has_everyones_secret = alert.secret is not None and hmac.compare_digest(
        alert.secret.encode(), settings.webhook_secret.get_secret_value().encode()
    )
    return NewAlert(
        hash_token(token, key),
        None if alert.secret is None or has_everyones_secret else hash_token(alert.secret, key),
        dedup_key(alert, parsed.payload),
        received_at,
        alert.symbol,
        alert.action,
        alert.market_position,
        alert.position_size,
        alert.quantity,
        alert.price,
        _cut(alert.order_id, "order_id"),
        _cut(alert.comment, "comment"),
        alert.timenow,
        strict_json.dumps(parsed.payload),
        has_everyones_secret,
        bool(alert.reduce_only),
    )


def _cut(label: str | None, field: str) -> str | None:
    return None if label is None else label[: LABELS[field]]


def _answer(alert: NewAlert, verdict: Verdict | None, notes: Sequence[str]) -> Receipt:
    if verdict is None:
        raise _unknown()
    if not verdict.is_trusted:
        reason = _MISSING if alert.secret_hash is None else _WRONG
        log.warning("an alert was refused", reason=reason, strategy=str(verdict.strategy_id))
        raise ForbiddenError(reason)
    if verdict.earlier_id is not None:
        return _receipt(verdict.earlier_id, notes, is_new=False)
    if verdict.is_stale and alert.sent_at is not None:
        age = (alert.received_at - alert.sent_at).total_seconds()
        raise StaleError(f"The alert is {age:.0f} s old by its timenow, and may be {verdict.max_age} s old.")
    if verdict.new_id is None:
        raise RuntimeError("an alert without a final verdict")
    if notes:
        log.info("an alert is not taken as it is", signal_id=str(verdict.new_id), notes=list(notes))
    return _receipt(verdict.new_id, notes, is_new=True)


def _receipt(signal_id: UUID, notes: Sequence[str], *, is_new: bool) -> Receipt:
    # Not validated: it is our own.
    return Receipt.model_construct(
        id=signal_id, status="accepted" if is_new else "duplicate", notes=list(notes)
    )


def _unknown() -> NotFoundError:
    return NotFoundError("No active strategy has this webhook address.")
