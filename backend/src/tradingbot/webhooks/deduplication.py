"""When are two alerts the same alert?

1. The sender numbers its alerts (`id`): the same id is the same alert, for ever.
2. The alert names an order and its time (`order_id` and `timenow`): the same order, time, symbol, action and
   target position is the same alert, for ever. The order and the time alone do not tell alerts apart:
   TradingView's `{{strategy.order.id}}` is the name of the entry ("Long"), `{{timenow}}` has whole seconds,
   and several charts may share one address.
3. Else, the same content within a window (WEBHOOK_DEDUP_WINDOW seconds) is the same alert. An `order_id`
   without its time is just content, as it comes back with every trade.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tradingbot.core.strict_json import dumps
from tradingbot.webhooks.schemas import Alert


class DedupKey(NamedTuple):
    """`key` is stored. With a window, look also for the `recent` ones received after `since`."""

    key: str
    lock: str | None = None
    recent: Sequence[str] = ()
    since: datetime | None = None


def dedup_key(alert: Alert, payload: dict[str, Any], now: datetime, window: int) -> DedupKey:
    """Gives the key under which this alert is stored once."""
    if alert.id is not None:
        return DedupKey(f"id:{_digest(alert.id)}")
    if alert.order_id is not None and alert.timenow is not None:
        return DedupKey(f"order:{_digest(_order(alert, alert.order_id, alert.timenow))}")
    content = f"body:{_digest(dumps(payload))}"
    bucket = int(now.timestamp()) // window
    keys = [f"{content}:{bucket}", f"{content}:{bucket - 1}"]
    return DedupKey(keys[0], content, keys, now - timedelta(seconds=window))


def _order(alert: Alert, order_id: str, moment: datetime) -> str:
    target = [alert.symbol, alert.action, alert.market_position, alert.position_size]
    return dumps([order_id, moment.isoformat(), *target])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
