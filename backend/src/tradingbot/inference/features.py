"""From the alerts of a strategy's symbol to the rows that a model takes."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from tradingbot.inference.manifest import Manifest, ModelError

_FIELDS = ("price", "quantity", "position_size")


class AlertData(Protocol):
    """What features are read from."""

    price: Decimal | None
    quantity: Decimal | None
    position_size: Decimal | None
    payload: dict[str, object]


def rows_of(manifest: Manifest, alerts: Sequence[AlertData]) -> list[list[float]]:
    """Gives one row for each of the last `window` alerts, which are given the oldest first.

    Raises:
        ModelError: fewer alerts than the window, or one without a feature.
    """
    if len(alerts) < manifest.window:
        raise ModelError(f"the model needs {manifest.window} alerts of the symbol, there are {len(alerts)}")
    names = [feature.name for feature in manifest.features]
    return [[_value(alert, name) for name in names] for alert in alerts[-manifest.window :]]


def _value(alert: AlertData, name: str) -> float:
    given = alert.payload.get("features")
    value = given.get(name) if isinstance(given, dict) else None
    if value is None and name in _FIELDS:
        value = getattr(alert, name)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ModelError(f"an alert has no number for the feature {name}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ModelError(f"an alert has no number for the feature {name}") from None
