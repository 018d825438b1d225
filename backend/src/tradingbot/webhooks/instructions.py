"""Instructions that other tools take and we do not yet: an alert with one is refused, rather than half done.

An exit is made all the same: what it asks for is clear, and it is never dropped for a reason of ours.
"""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any

_MARKET_ONLY = "only market orders are made"
_EXIT_BY_ALERT = "not supported: send an alert that closes, or set it at the exchange"
_AT_THE_EXCHANGE = "not supported: set it at the exchange"
# By their names in lower case without `_` and `-`.
_UNSUPPORTED = {
    **dict.fromkeys(("limitprice", "stopprice", "triggerprice"), _MARKET_ONLY),
    **dict.fromkeys(
        ("stoploss", "sl", "takeprofit", "tp", "trailingstop", "trailingdistance"), _EXIT_BY_ALERT
    ),
    **dict.fromkeys(("leverage", "marginmode", "margintype", "positionside"), _AT_THE_EXCHANGE),
}
# Of a name, in an answer, and names in one answer.
_LONGEST, _MOST = 64, 20
_ORDER_TYPE = ("ordertype", "type")
# `type` alone is anybody's word: only these are order types for certain.
_OTHER_TYPES = re.compile(r"(limit|stop|trailing|takeprofit|oco|postonly|iceberg)")


def unsupported(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the fields of an alert that ask for what is not supported, each with the reason."""
    found = (
        (field[:_LONGEST], why)
        for field, value in document.items()
        if (why := _objection(field, value)) is not None
    )
    return list(islice(found, _MOST))


def _objection(field: str, value: Any) -> str | None:
    name = _plain(field)
    if (name not in _ORDER_TYPE and name not in _UNSUPPORTED) or _says_nothing(value):
        return None
    if name in _ORDER_TYPE:
        word = _plain(value) if isinstance(value, str) else ""
        is_other = bool(_OTHER_TYPES.match(word)) if name == "type" else word != "market"
        return _MARKET_ONLY if is_other else None
    if name == "leverage" and _number(value) == 1:
        return None
    return _UNSUPPORTED[name]


def _plain(text: str) -> str:
    return text.replace("_", "").replace("-", "").replace(" ", "").lower()


def _says_nothing(value: Any) -> bool:
    """Return whether it is how senders leave a field out: null, nothing, zero, or Pine's `na`."""
    if value is None or value is False or value in ({}, []):
        return True
    if isinstance(value, str) and _plain(value) in ("", "na", "nan", "null", "none", "false"):
        return True
    return _number(value) == 0


def _number(value: Any) -> Decimal | None:
    try:
        number = Decimal(value) if isinstance(value, str | int | Decimal) else None
    except InvalidOperation:
        return None
    # A signalling NaN cannot be compared.
    return number if number is not None and number.is_finite() else None
