"""nginx's request limit, computed as nginx computes it.

Source: ``ngx_http_limit_req_lookup()`` and ``ngx_http_limit_req_zone()`` in
src/http/modules/ngx_http_limit_req_module.c of nginx 1.30. nginx counts in thousandths of a request:

    rate   = requests * 1000 / scale                  (scale: 1 for r/s, 60 for r/m)
    excess = last_excess - rate * elapsed_ms / 1000 + 1000, at least 0
    the request is rejected when excess > burst * 1000

A rejected request leaves the bucket as it was; a first one makes a bucket with no excess.
Divisions are of C integers. With ``nodelay`` an accepted request is never held back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SCALE = 1000


@dataclass
class LeakyBucket:
    """The bucket of one key.

    requests_per_minute: the zone's rate. burst: requests allowed ahead of it.
    """

    requests_per_minute: int
    burst: int
    excess: int = 0
    last_ms: int | None = None

    @property
    def rate(self) -> int:
        """Thousandths of a request that drain each second."""
        return self.requests_per_minute * SCALE // 60

    @property
    def token_seconds(self) -> float:
        """Seconds in which one request drains."""
        return SCALE / self.rate

    @property
    def drain_seconds(self) -> float:
        """Seconds after which a full bucket is as good as new."""
        return (self.burst + 1) * self.token_seconds

    def admit(self, now_ms: int) -> bool:
        """Count a request at *now_ms* (milliseconds of a clock that does not go back) and say if it passes."""
        if self.last_ms is None:
            self.excess, self.last_ms = 0, now_ms
            return True
        elapsed = max(now_ms - self.last_ms, 0)
        excess = max(self.excess - self.rate * elapsed // 1000 + SCALE, 0)
        if excess > self.burst * SCALE:
            return False
        self.excess = excess
        if elapsed:
            self.last_ms = now_ms
        return True

    def admitted(self, times_ms: Iterable[int]) -> int:
        """Return how many requests at *times_ms* pass."""
        return sum(self.admit(moment) for moment in times_ms)


@dataclass(frozen=True)
class Volley:
    """Requests of which we know only how many they were and between which moments (ms) they were sent."""

    count: int
    start_ms: int
    end_ms: int


def admitted_in_each(requests_per_minute: int, burst: int, volleys: Sequence[Volley]) -> list[int]:
    """Return how many requests of each of two or fewer *volleys* pass, beginning with an empty bucket.

    Raises ValueError when that depends on when exactly each request came: the volleys took too long.
    """

    def counts(first: str, rest: str, then: str) -> list[int]:
        bucket = LeakyBucket(requests_per_minute, burst)
        found = []
        for number, volley in enumerate(volleys):
            at_once = min(volley.count, burst + 1)
            moments = [first] * at_once + [rest] * (volley.count - at_once) if number == 0 else [then] * volley.count
            found.append(bucket.admitted(getattr(volley, moment) for moment in moments))
        return found

    # The bucket drains most when it fills early and is asked late, and least the other way round.
    most = counts("start_ms", "end_ms", "end_ms")
    least = counts("end_ms", "end_ms", "start_ms")
    if most != least:
        raise ValueError(f"{least} to {most} requests may pass: {list(volleys)}")
    return most
