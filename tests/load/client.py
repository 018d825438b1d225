"""The load itself: half alerts, half reads, at a steady rate, on connections that idle between requests."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time

from . import sockets
from .http import Answer, Connection, RequestError, trusting
from .plan import Plan
from .result import Result

# Connections that idle for seconds: longer than nginx holds back the close of an idle one (`keepalive_min_timeout`).
PATIENT_CONNECTIONS = 10
PATIENT_PAUSE = 6.0
# One alert in so many goes to a user whom WebSockets watch: each is several events to each of them.
WATCHED_SHARE = 12
# A third are orders; where nothing is held there is nothing to close, which a worker decides with much less work: one
# on two busy processors would else fall behind, and the wait for it would be most of a test.
SIDES = ("buy", "sell", "close", "close", "close", "close")
# Nobody starts with all at once.
RAMP = 1.0
READY_WITHIN = 30.0


class Client:
    """One run of load."""

    def __init__(self, plan: Plan, rate: float, connections: int, websockets: int) -> None:
        self.plan = plan
        self.result = Result()
        self._pause = connections / rate
        self._connections = connections
        self._websockets = websockets
        self._numbers = itertools.count()
        self._turns = itertools.count(), plan.webhooks
        self._watched_turns = itertools.count(), [path for _, path in plan.watched]
        self._run = f"{time.time_ns():x}"
        self._stopping = asyncio.Event()
        self._context = trusting()

    def stop(self) -> None:
        """End the run in order: what is on its way is waited for."""
        self._stopping.set()

    async def run(self, seconds: float | None, ready: asyncio.Event | None = None) -> Result:
        """Load until *seconds* are over or `stop` is called. `ready` is set once the WebSockets listen."""
        watchers = [
            sockets.Watcher(self.plan, number % len(self.plan.watched), self.result, self._context)
            for number in range(self._websockets)
        ]
        following = [asyncio.create_task(watcher.run()) for watcher in watchers]
        await self._wait_for(watchers)
        self.result.started = time.time()
        begun = time.monotonic()
        pauses = [self._pause] * self._connections + [PATIENT_PAUSE] * PATIENT_CONNECTIONS
        senders = [asyncio.create_task(self._send(pause)) for pause in pauses]
        if ready:
            ready.set()
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            self._stopping.set()
        await asyncio.gather(*senders)
        self.result.seconds = time.monotonic() - begun
        await sockets.settle(watchers)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        return self.result

    async def _wait_for(self, watchers: list[sockets.Watcher]) -> None:
        """Wait until the WebSockets listen. Raises RuntimeError: nothing can be told of a stack that was not well."""
        try:
            async with asyncio.timeout(READY_WITHIN):
                await asyncio.gather(*(watcher.ready.wait() for watcher in watchers))
        except TimeoutError:
            why = "; ".join(sorted({f"{failure.kind} ({failure.detail})" for failure in self.result.failures}))
            raise RuntimeError(f"not all WebSockets listen after {READY_WITHIN:g} s: {why or 'no answer'}") from None

    async def _send(self, pause: float) -> None:
        """Send one request after another on one connection, with pauses around *pause* seconds."""
        connection = Connection(self.plan.url, self._context)
        await asyncio.sleep(random.uniform(0, min(RAMP, pause)))
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._one(connection)
            wanted = random.uniform(0.5, 1.5) * pause
            try:
                async with asyncio.timeout(max(0.0, wanted - (time.monotonic() - began))):
                    await self._stopping.wait()
            except TimeoutError:
                continue
        self.result.reconnects += connection.reconnects
        connection.close()

    async def _one(self, connection: Connection) -> None:
        number = next(self._numbers)
        if number % 2:
            await self._alert(connection, number // 2)
        elif number % 4:
            await self._get(connection, "/api/v1/health", {})
        else:
            await self._get(connection, "/api/v1/signals?limit=1", {"X-API-Key": self.plan.api_key})

    async def _get(self, connection: Connection, path: str, headers: dict[str, str]) -> None:
        what = f"GET {path.partition('?')[0]}"
        began = time.monotonic()
        try:
            answer = await connection.request("GET", path, headers=headers)
        except RequestError as error:
            self.result.fail(what, error.kind, error.detail)
            return
        if 200 <= answer.status < 300:
            self.result.succeed(what, time.monotonic() - began)
        else:
            self.result.fail(what, f"status {answer.status}", said(answer))

    async def _alert(self, connection: Connection, number: int) -> None:
        """Send an alert of its own. Each strategy gets SIDES in turn."""
        turns, paths = self._turns
        if number % WATCHED_SHARE == 0:
            turns, paths = self._watched_turns
        turn, place = divmod(next(turns), len(paths))
        name = f"{self._run}-{number}"
        side = SIDES[turn % len(SIDES)]
        alert = {"id": name, "symbol": "BTCUSDT", "action": side, "quantity": "0.001", "price": "64000"}
        began = time.monotonic()
        try:
            answer = await connection.request("POST", paths[place], json.dumps(alert).encode())
        except RequestError as error:
            self.result.fail("POST alert", error.kind, error.detail)
            return
        if answer.status == 202:
            self.result.succeed("POST alert", time.monotonic() - began)
            self.result.accepted[name] = str(json.loads(answer.body)["id"])
        else:
            # Each alert is new, so 200 (stored already) is as wrong as a refusal: somebody sent it twice.
            self.result.fail("POST alert", f"status {answer.status}", said(answer))


def said(answer: Answer) -> str:
    """Return what an answer says went wrong, without what differs from one request to the next."""
    text = answer.body.decode(errors="replace")
    try:
        found = json.loads(text)
        return f"{found['title']}: {found['detail']}"
    except (ValueError, KeyError, TypeError):
        return text
