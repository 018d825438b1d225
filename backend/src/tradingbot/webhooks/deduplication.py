"""When are two alerts the same alert?

1. The sender numbers its alerts (`id`): the same id is the same alert, for ever.
2. The alert names an order and its time (`order_id` and `timenow`): the same order, time, symbol, action,
   quantity, target position and `reduce_only` is the same alert, for ever. The order and the time alone do
   not tell alerts apart: TradingView's `{{strategy.order.id}}` is the name of the entry ("Long"),
   `{{timenow}}` has whole seconds, and several charts may share one address.
3. Else, the same content within a window (WEBHOOK_DEDUP_WINDOW seconds) is the same alert. An `order_id`
   without its time is just content, as it comes back with every trade.
"""

import hashlib
from datetime import datetime
from typing import Any

from tradingbot.core.strict_json import dumps
from tradingbot.webhooks.schemas import Alert

# A key that begins so holds its signal for the window only, and is then given up to a later one.
CONTENT = "body:"


def dedup_key(alert: Alert, payload: dict[str, Any]) -> str:
    """Gives the key that the strategy has once."""
    if alert.id is not None:
        return f"id:{_digest(alert.id)}"
    if alert.order_id is not None and alert.timenow is not None:
        return f"order:{_digest(_order(alert, alert.order_id, alert.timenow))}"
    return f"{CONTENT}{_digest(dumps(payload))}"


def _order(alert: Alert, order_id: str, moment: datetime) -> str:
    wanted = [alert.symbol, alert.action, alert.quantity, alert.market_position, alert.position_size]
    # Only if it is there: the keys of alerts that earlier versions stored stay the same.
    wanted += ["reduce_only"] if alert.reduce_only else []
    return dumps([order_id, moment.isoformat(), *wanted])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
