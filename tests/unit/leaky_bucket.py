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

from collections.abc import Iterable
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


def burst_admitted(requests_per_minute: int, burst: int, count: int, elapsed_ms: int) -> int:
    """Return how many of *count* requests pass when they take *elapsed_ms* and begin with an empty bucket.

    Raises ValueError when that depends on when each of them came: from the time of one request on, one
    more than at once may pass.
    """
    at_once = LeakyBucket(requests_per_minute, burst).admitted([0] * count)
    late = LeakyBucket(requests_per_minute, burst)
    at_last = late.admitted([0] * min(count, burst + 1) + [elapsed_ms] * max(count - burst - 1, 0))
    if at_once != at_last:
        raise ValueError(f"{count} requests in {elapsed_ms} ms: {at_once} to {at_last} may pass")
    return at_once
