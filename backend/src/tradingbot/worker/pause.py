"""Pauses that grow, with jitter: those who failed together shall not try again together."""

import random

_random = random.SystemRandom()


def pause(attempt: int, first: float, longest: float) -> float:
    """Gives the seconds to wait after attempt 0, 1, …: doubled each time, of that a half to the whole."""
    whole = min(first * 2.0 ** min(attempt, 32), longest)
    return whole * _random.uniform(0.5, 1.0)
