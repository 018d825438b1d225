"""What senders write in several ways: fields of several names, and labels, which never cost a trade."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

# What a field may be called; the first that is not null counts.
_NAMES = {
    "symbol": ("symbol", "ticker"),
    "quantity": ("quantity", "qty", "contracts"),
    "reduce_only": ("reduce_only", "reduceOnly"),
}
# Labels, and how long they are stored.
LABELS = {"id": None, "order_id": 128, "comment": 1000}


def tidy(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the document with one name for each field and with labels as text, and what is not taken of it.

    A label that is neither text nor a number, or that is empty, is left out. One that is too long is cut
    where it is stored: here it is whole, since it tells alerts apart.
    """
    fields, notes = dict(document), []
    for field, names in _NAMES.items():
        given = [name for name in names if document.get(name) is not None]
        if given:
            fields[field] = document[given[0]]
        notes += [
            f"{name}: {given[0]} is taken" for name in given[1:] if document[name] != document[given[0]]
        ]
    for field, longest in LABELS.items():
        if field not in document:
            continue
        label = _label(document[field])
        fields[field] = label
        if label is None and document[field] is not None:
            notes.append(f"{field}: neither text nor a number, or empty; left out")
        elif label is not None and longest is not None and len(label) > longest:
            notes.append(f"{field}: cut to {longest} characters")
    return fields, notes


def _label(value: Any) -> str | None:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None
