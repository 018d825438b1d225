"""When are two alerts the same alert?

1. The sender numbers its alerts (`id`): the same id is the same alert, for ever.
2. The alert names an order (`order_id`): the same order at the same time (`timenow`, where it is given) is
   the same alert, for ever. TradingView's `{{strategy.order.id}}` is the name of the entry ("Long") and comes
   back with every trade, so send `timenow` with it.
3. Else, the same content within a window (WEBHOOK_DEDUP_WINDOW seconds) is the same alert.
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
    if alert.order_id is not None:
        moment = alert.timenow.isoformat() if alert.timenow else ""
        return DedupKey(f"order:{_digest(alert.order_id + '@' + moment)}")
    content = f"body:{_digest(dumps(payload))}"
    bucket = int(now.timestamp()) // window
    keys = [f"{content}:{bucket}", f"{content}:{bucket - 1}"]
    return DedupKey(keys[0], content, keys, now - timedelta(seconds=window))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
