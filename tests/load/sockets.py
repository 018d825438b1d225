"""Clients of live events: each follows its user, and comes back with the last number that it has seen."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .http import Connection, RequestError
from .plan import Plan
from .result import Close, Result, Socket

PATIENCE = 10.0
PAUSE_AFTER_FAILURE = 0.2


class Watcher:
    """A client on a WebSocket, from its first connection to the end of the run."""

    def __init__(self, plan: Plan, user: int, result: Result, context: ssl.SSLContext) -> None:
        self.ready = asyncio.Event()
        self.seen = Socket(user)
        self._plan = plan
        self._key = plan.watched[user][0]
        self._result = result
        self._context = context
        result.sockets.append(self.seen)

    async def run(self) -> None:
        """Follow the events until cancelled."""
        while True:
            try:
                socket = await self._connect()
            except RequestError as error:
                self._result.fail("WebSocket", error.kind, error.detail)
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
                continue
            try:
                async for text in socket:
                    self._take(json.loads(text))
            except ConnectionClosed:
                pass
            self.seen.closes.append(Close(time.time(), socket.close_code or 1006, socket.close_reason or ""))

    async def _connect(self) -> ClientConnection:
        """Get a ticket, connect and wait for `ready`. Raises RequestError."""
        tickets = Connection(self._plan.url, self._context, PATIENCE)
        try:
            answer = await tickets.request("POST", "/api/v1/ws/tickets", headers={"X-API-Key": self._key})
        finally:
            tickets.close()
        if answer.status != 201:
            raise RequestError(f"status {answer.status}", f"no ticket: {answer.body.decode(errors='replace')}")
        after = f"?after={self.seen.last}" if self.ready.is_set() else ""
        scheme = "wss" if self._plan.url.startswith("https:") else "ws"
        address = f"{scheme}://{tickets.authority}/api/v1/ws{after}"
        protocols: Any = json.loads(answer.body)["protocols"]
        try:
            socket = await connect(
                address,
                ssl=self._context if scheme == "wss" else None,
                subprotocols=protocols,
                open_timeout=PATIENCE,
                compression=None,
                proxy=None,
            )
            first = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
            raise RequestError("handshake", f"{type(error).__name__}: {error}") from error
        if first["type"] != "ready":
            raise RequestError("handshake", f"the first message is {first['type']}")
        self._is_back(first["sequence"])
        return socket

    async def newest(self) -> int:
        """Return the number of the user's last event; if it cannot be had, that is a failure of the run."""
        connection = Connection(self._plan.url, self._context, PATIENCE)
        try:
            answer = await connection.request("GET", "/api/v1/events", headers={"X-API-Key": self._key})
            return int(json.loads(answer.body)["next_after"])
        except (RequestError, ValueError, KeyError) as error:
            self._result.fail("GET /api/v1/events", "last number", str(error))
            return self.seen.last
        finally:
            connection.close()

    def _is_back(self, sequence: int) -> None:
        if not self.ready.is_set():
            self.seen.first = self.seen.last = sequence
            self.ready.set()
        elif self.seen.closes:
            close = self.seen.closes[-1]
            close.back_after = round(time.time() - close.at, 3)

    def _take(self, message: dict[str, Any]) -> None:
        """Check that the next event is the next number."""
        sequence = message.get("sequence")
        if sequence is None:
            return
        if sequence <= self.seen.last:
            self.seen.repeated.append(sequence)
            return
        self.seen.missed += range(self.seen.last + 1, sequence)
        self.seen.last = sequence
        self.seen.events += 1


async def settle(watchers: list[Watcher]) -> None:
    """Wait until each client has seen what there is of its user; note what it has not seen after PATIENCE seconds."""
    users = {watcher.seen.user: watcher for watcher in watchers}
    newest = {user: await watcher.newest() for user, watcher in users.items()}
    deadline = time.monotonic() + PATIENCE
    while behind := [watcher for watcher in watchers if watcher.seen.last < newest[watcher.seen.user]]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    for watcher in behind:
        watcher.seen.missed += range(watcher.seen.last + 1, newest[watcher.seen.user] + 1)
