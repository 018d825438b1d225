"""Whom the load is sent to: strategies and keys, made once on the host and kept in a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from .http import Connection, trusting

# The backend's command line on the host: arguments → what it printed as JSON.
CommandLine = Callable[..., dict[str, str]]


@dataclass(frozen=True)
class Plan:
    """Where to, with what credentials. Watched users have WebSockets and get a small share of the alerts."""

    url: str
    webhooks: list[str]
    api_key: str
    watched: list[tuple[str, str]]

    def write(self, path: Path) -> None:
        """Write it where only this user reads it: it holds credentials."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what `write` wrote."""
        found = json.loads(path.read_text())
        found["watched"] = [(key, path) for key, path in found["watched"]]
        return cls(**found)


def make(url: str, command_line: CommandLine, name: str, strategies: int = 12, watched: int = 4) -> Plan:
    """Make a user with *strategies*, and *watched* users with one each. `name` tells runs on one host apart."""
    keys = [
        command_line("api-key", "create", "--user", f"{name}-{number}@example.com", "--name", "load")["api_key"]
        for number in range(watched + 1)
    ]
    webhooks, *others = asyncio.run(_strategies(url, keys, [strategies, *[1] * watched]))
    return Plan(url, webhooks, keys[0], [(key, paths[0]) for key, paths in zip(keys[1:], others, strict=True)])


async def _strategies(url: str, keys: list[str], counts: list[int]) -> list[list[str]]:
    """Make so many strategies with each key; return the paths of their webhooks."""
    connection = Connection(url, trusting(), timeout=30)
    made = []
    for key, count in zip(keys, counts, strict=True):
        paths = []
        for number in range(count):
            body = json.dumps({"name": f"load {number}"}).encode()
            headers = {"X-API-Key": key, "Content-Type": "application/json"}
            answer = await connection.request("POST", "/api/v1/strategies", body, headers)
            if answer.status != 201:
                raise RuntimeError(f"no strategy was made: {answer.status} {answer.body.decode(errors='replace')}")
            paths.append("/" + str(json.loads(answer.body)["webhook_url"]).split("/", 3)[3])
        made.append(paths)
    connection.close()
    return made
