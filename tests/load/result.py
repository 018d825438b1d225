"""What a run of load came to: counts, every failure and every close of a WebSocket with its time; JSON and a table."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# TradingView waits so long for an answer.
SENDERS_PATIENCE = 3.0


@dataclass(frozen=True)
class Failure:
    """A request that was not answered with success. `at` is in seconds since 1970."""

    at: float
    what: str
    kind: str
    detail: str


@dataclass
class Close:
    """A WebSocket that ended, and after how many seconds its client was ready again (None: not yet)."""

    at: float
    code: int
    reason: str
    back_after: float | None = None


@dataclass
class Socket:
    """One client that follows a user's events: how many came, which were missed or came twice, how it ended."""

    user: int
    first: int = 0
    last: int = 0
    events: int = 0
    missed: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    closes: list[Close] = field(default_factory=list)


@dataclass
class Result:
    """Everything that a run has seen. Times of answers are in seconds."""

    started: float = field(default_factory=time.time)
    seconds: float = 0.0
    answered: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    # Alerts answered 202: the alert's own number → the signal's id.
    accepted: dict[str, str] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    reconnects: int = 0
    sockets: list[Socket] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """All that were sent, with and without success; those that only follow a WebSocket's end are in it."""
        return sum(self.answered.values()) + len(self.failures)

    def succeed(self, what: str, seconds: float) -> None:
        """Note an answer of success."""
        self.answered[what] = self.answered.get(what, 0) + 1
        self.times.append(round(seconds, 4))

    def fail(self, what: str, kind: str, detail: str) -> None:
        """Note a failure."""
        self.failures.append(Failure(round(time.time(), 3), what, kind, detail[:300]))

    def closes(self) -> list[Close]:
        """Return how WebSockets ended, in the order of time."""
        return sorted((close for socket in self.sockets for close in socket.closes), key=lambda close: close.at)

    def missed(self) -> int:
        """Return how many events clients have missed or got twice."""
        return sum(len(socket.missed) + len(socket.repeated) for socket in self.sockets)

    def write(self, path: Path) -> None:
        """Write it as JSON, by a rename: who reads it sees all of it."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)) + "\n")
        part.rename(path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote."""
        found: dict[str, Any] = json.loads(path.read_text())
        found["failures"] = [Failure(**failure) for failure in found["failures"]]
        for socket in found["sockets"]:
            socket["closes"] = [Close(**close) for close in socket["closes"]]
        found["sockets"] = [Socket(**socket) for socket in found["sockets"]]
        return cls(**found)

    def table(self) -> str:
        """Return it for people."""
        rate = self.requests / self.seconds if self.seconds else 0.0
        posts = sum(count for what, count in self.answered.items() if what.startswith("POST"))
        closes = self.closes()
        codes = Counter(close.code for close in closes)
        back = [close.back_after for close in closes if close.back_after is not None]
        ordered = sorted(self.times)
        rows = [
            ("seconds", f"{self.seconds:.1f}"),
            ("requests", f"{self.requests} ({rate:.0f} a second, {posts} of them POST)"),
            ("failed", str(len(self.failures))),
            ("answers, p50 / p99 / slowest", " / ".join(f"{_at(ordered, p) * 1000:.0f} ms" for p in (50, 99, 100))),
            (f"answers after {SENDERS_PATIENCE:g} s", str(sum(took > SENDERS_PATIENCE for took in ordered))),
            ("connections closed while idle", str(self.reconnects)),
            ("WebSockets", str(len(self.sockets))),
            ("their closes, by code", ", ".join(f"{code}: {count}" for code, count in sorted(codes.items())) or "none"),
            ("slowest way back", f"{max(back):.2f} s" if back else "none was needed"),
            ("not back", str(len(closes) - len(back))),
            ("events received", str(sum(socket.events for socket in self.sockets))),
            ("events missed or doubled", str(self.missed())),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
        for kind, count in Counter((f.what, f.kind, f.detail) for f in self.failures).most_common(10):
            lines.append(f"  {count} x {': '.join(kind)}")
        return "\n".join(lines)


def _at(ordered: list[float], percent: int) -> float:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0.0
