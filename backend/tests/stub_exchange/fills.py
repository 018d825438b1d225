"""How orders are filled."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal


@dataclass
class Filling:
    """Market orders are filled in `parts`: at once, one every `interval` seconds, or one on each command.

    Each part's price is `price_step` away from the one before it, against the order. After `expires_after`
    parts filled at once the book is empty, and the rest of a market order expires.
    """

    how: Literal["at_once", "timed", "manual"] = "at_once"
    parts: int = 1
    interval: float = 0.1
    price_step: Decimal = Decimal(0)
    expires_after: int | None = None


def split(quantity: Decimal, parts: int, step: Decimal) -> list[Decimal]:
    """Splits a quantity into at most `parts` multiples of `step`, the last one taking the rest."""
    part = max((quantity / parts) // step * step, step)
    sizes: list[Decimal] = []
    left = quantity
    while left > 0:
        size = left if len(sizes) == parts - 1 else min(part, left)
        sizes.append(size)
        left -= size
    return sizes
