"""Which of the moments of a kill are tried: all of them for a release, a part that rotates with the seed otherwise."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import TypeVar

Moment = TypeVar("Moment")
SEED = int(os.environ.get("TEST_SEED", time.time_ns() % 1_000_000))
ALL = bool(os.environ.get("TEST_ALL"))


def some_of(moments: Sequence[Moment], count: int) -> list[Moment]:
    """Return *count* of *moments* in their order, all of them under `make test-all`."""
    if ALL:
        return list(moments)
    chosen = sorted(random.Random(SEED).sample(range(len(moments)), count))
    return [moments[number] for number in chosen]
