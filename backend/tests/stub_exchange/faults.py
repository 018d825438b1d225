"""What goes wrong on command."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

FOREVER = -1


@dataclass
class Fault:
    """One way to misbehave towards the next `times` requests of `method` to a path that ends with `path`.

    `delay` waits `seconds`; `drop` closes the connection without an answer; `answer` answers with `status`,
    Binance's `code` and `message`, and if given Retry-After and Location. `when` says whether that happens
    before the request is carried out (which, but for a delay, it then never is) or after.
    """

    action: Literal["delay", "drop", "answer"]
    when: Literal["before", "after"] = "before"
    method: str = "POST"
    path: str = "/order"
    times: int = 1
    seconds: float = 0
    status: int = 503
    code: int | None = -1000
    message: str = "An unknown error occurred while processing the request."
    retry_after: int | None = None
    location: str | None = None

    def answer(self) -> web.Response:
        """Gives the answer that an `answer` fault gives."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.location is not None:
            headers["Location"] = self.location
        if self.code is None:
            return web.Response(
                status=self.status,
                text=f"<html>{self.message}</html>",
                content_type="text/html",
                headers=headers,
            )
        body = {"code": self.code, "msg": self.message}
        return web.json_response(body, status=self.status, headers=headers)


@dataclass
class Faults:
    """The faults that are waiting for their request."""

    waiting: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault | dict[str, Any]) -> None:
        """Makes the exchange misbehave."""
        self.waiting.append(Fault(**fault) if isinstance(fault, dict) else fault)

    def clear(self) -> None:
        """Makes the exchange behave."""
        self.waiting.clear()

    def take(self, method: str, path: str, when: str) -> list[Fault]:
        """Gives what hits this request."""
        hits = [
            fault
            for fault in self.waiting
            if fault.when == when and fault.method in (method, "*") and path.endswith(fault.path)
        ]
        for fault in hits:
            if fault.times != FOREVER:
                fault.times -= 1
        self.waiting = [fault for fault in self.waiting if fault.times != 0]
        return hits


async def strike(faults: list[Fault], request: web.Request) -> web.Response | None:
    """Lets the faults happen; gives the answer to give instead of the right one."""
    for fault in faults:
        await asyncio.sleep(fault.seconds)
        if fault.action == "drop":
            if request.transport is not None:
                request.transport.abort()
            # Nobody is there any more to get it.
            return web.Response()
        if fault.action == "answer":
            return fault.answer()
    return None
