"""The load client counts what fails, sends nothing twice, and takes only a close that it has seen for a close."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from tests.load import ledger, sockets
from tests.load.__main__ import parser
from tests.load.client import Client
from tests.load.http import Answer, Connection, RequestError, trusting
from tests.load.plan import Plan
from tests.load.result import Close, Result, Socket

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """Serve on a free port; the address is given."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (EOFError, OSError):
            pass
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read one request; return its first line and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-Length"))
    return head.split("\r\n")[0], await reader.readexactly(length)


def answering(*answers: bytes, seen: list[str] | None = None) -> Handler:
    """Answer with these in turn on each connection, then close it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            line, _ = await read_request(reader)
            if seen is not None:
                seen.append(line)
            writer.write(answer)
            await writer.drain()

    return handle


def test_several_requests_share_a_connection() -> None:
    async def run() -> None:
        async with server(answering(OK, OK, OK)) as url:
            connection = Connection(url, trusting())
            assert [(await connection.request("GET", "/")).body for _ in range(3)] == [b"ok"] * 3
            assert connection.reconnects == 0
            connection.close()

    asyncio.run(run())


def test_an_answer_in_chunks_and_one_that_closes() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    async def run() -> None:
        async with server(answering(chunked, closing)) as url:
            connection = Connection(url, trusting())
            assert (await connection.request("GET", "/")).body == b"abcde"
            assert (await connection.request("GET", "/")).body == b"ok"
            # Told to close, it did; nothing was lost and no reconnect has to be counted.
            assert (await connection.request("GET", "/")).status == 200
            assert connection.reconnects == 0
            connection.close()

    asyncio.run(run())


def test_a_close_while_idle_is_no_failure() -> None:
    async def run() -> None:
        async with server(answering(OK)) as url:
            connection = Connection(url, trusting())
            await connection.request("GET", "/")
            await asyncio.sleep(0.1)
            assert (await connection.request("GET", "/")).status == 200
            assert connection.reconnects == 1
            connection.close()

    asyncio.run(run())


def test_a_close_that_only_the_kernel_has_seen_is_no_failure() -> None:
    """The event loop was busy when the FIN came: it is there, though nobody has read it."""
    closed = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()
        closed.set()

    async def run() -> None:
        async with server(once) as url:
            connection = Connection(url, trusting())
            await connection.request("GET", "/")
            await closed.wait()
            assert connection._streams
            assert not connection._streams[0].at_eof()
            assert (await connection.request("GET", "/")).status == 200
            connection.close()

    asyncio.run(run())


def test_a_close_after_writing_is_a_failure_and_nothing_is_sent_again() -> None:
    seen: list[str] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await read_request(reader))[0])

    async def run() -> None:
        async with server(swallow) as url:
            with pytest.raises(RequestError, match="after it was sent") as caught:
                await Connection(url, trusting()).request("POST", "/x", b"{}")
            assert caught.value.kind == "reset"

    asyncio.run(run())
    assert seen == ["POST /x HTTP/1.1"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "reset"),
        (b"SSH-2.0-x\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "protocol"),
    ],
)
def test_half_an_answer_is_a_failure(answer: bytes, kind: str) -> None:
    async def run() -> None:
        async with server(answering(answer)) as url:
            with pytest.raises(RequestError) as caught:
                await Connection(url, trusting()).request("GET", "/")
            assert caught.value.kind == kind

    asyncio.run(run())


def test_no_answer_and_nobody_there() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        async with server(mute) as url:
            with pytest.raises(RequestError) as caught:
                await Connection(url, trusting(), timeout=0.1).request("GET", "/")
            assert caught.value.kind == "timeout"
        with pytest.raises(RequestError) as caught:
            await Connection(url, trusting()).request("GET", "/")
        assert caught.value.kind == "refused"

    asyncio.run(run())


def stack(statuses: dict[str, int], received: list[dict[str, Any]]) -> Handler:
    """A stack that answers alerts and reads, with other statuses where told."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, body = await read_request(reader)
            method, path, _ = line.split()
            status = statuses.get(path, 202 if method == "POST" else 200)
            content = b"{}"
            if method == "POST":
                received.append(json.loads(body) | {"path": path})
                content = json.dumps({"id": f"signal {len(received)}", "status": "accepted"}).encode()
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()

    return handle


def run_load(statuses: dict[str, int], received: list[dict[str, Any]], rate: float = 200) -> Result:
    async def run() -> Result:
        async with server(stack(statuses, received)) as url:
            return await Client(Plan(url, ["/a", "/b"], "key", [("key", "/w")]), rate, 10, 0).run(1.5)

    return asyncio.run(run())


def test_half_of_the_load_are_alerts_each_of_its_own() -> None:
    received: list[dict[str, Any]] = []
    result = run_load({}, received)
    assert result.failures == []
    assert result.requests > 100
    alerts = result.answered["POST alert"]
    assert alerts == len(received) == len(result.accepted)
    assert 0.45 < alerts / result.requests < 0.55
    assert len({alert["id"] for alert in received}) == alerts
    watched = [alert for alert in received if alert["path"] == "/w"]
    assert 0 < len(watched) < alerts / 6
    for path in ("/a", "/b"):
        sides = [alert["action"] for alert in received if alert["path"] == path]
        assert abs(sides.count("buy") - sides.count("sell")) <= 1
        assert sides.count("close") > sides.count("buy") > 0


@pytest.mark.parametrize(
    ("path", "status", "what"),
    [
        ("/a", 502, "POST alert"),
        ("/a", 200, "POST alert"),
        ("/api/v1/health", 503, "GET /api/v1/health"),
        ("/api/v1/signals?limit=1", 302, "GET /api/v1/signals"),
    ],
)
def test_every_answer_that_is_no_success_is_counted(path: str, status: int, what: str) -> None:
    received: list[dict[str, Any]] = []
    result = run_load({path: status}, received)
    assert result.failures
    assert {(failure.what, failure.kind) for failure in result.failures} == {(what, f"status {status}")}
    assert all(failure.at > result.started - 1 for failure in result.failures)
    assert len(result.accepted) == result.answered.get("POST alert", 0)


class Feed:
    """A server of tickets and events that closes with 1012 after so many, as one does that is replaced."""

    def __init__(self, lost: int | None = None, last: int = 6) -> None:
        self.connected: list[str] = []
        self.lost = lost
        self.last = last

    async def events(self, socket: ServerConnection) -> None:
        assert socket.request
        self.connected.append(socket.request.path)
        after = int(socket.request.path.partition("after=")[2] or 0)
        await socket.send(json.dumps({"type": "ready", "sequence": after}))
        await socket.send(json.dumps({"type": "health", "data": {}}))
        first_half = len(self.connected) == 1
        for number in range(after + 1, (3 if first_half else self.last) + 1):
            if number != self.lost:
                await socket.send(json.dumps({"type": "signal", "sequence": number}))
        if first_half:
            await socket.close(CloseCode.SERVICE_RESTART, "restart")
        await socket.wait_closed()


def follow(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> tuple[Result, Socket]:
    monkeypatch.setattr(sockets, "PATIENCE", 1.0)

    async def run() -> Result:
        async with serve(feed.events, "127.0.0.1", 0, subprotocols=[Subprotocol("tradingbot.v1")]) as running:
            port = next(iter(running.sockets)).getsockname()[1]
            answers = {
                "POST": (201, {"protocols": ["tradingbot.v1", "ticket.x"]}),
                "GET": (200, {"next_after": feed.last}),
            }

            async def request(self: Connection, method: str, *_: Any, **__: Any) -> Any:
                status, body = answers[method]
                return Answer(status, {}, json.dumps(body).encode())

            monkeypatch.setattr(Connection, "request", request)
            result = Result()
            plan = Plan(f"http://127.0.0.1:{port}", [], "", [("key", "/w")])
            watcher = sockets.Watcher(plan, 0, result, trusting())
            task = asyncio.create_task(watcher.run())
            await asyncio.wait_for(watcher.ready.wait(), 5)
            await asyncio.sleep(0.5)
            await sockets.settle([watcher])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return result

    result = asyncio.run(run())
    return result, result.sockets[0]


def test_a_client_of_events_comes_back_with_its_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    result, seen = follow(feed, monkeypatch)
    assert feed.connected == ["/api/v1/ws", "/api/v1/ws?after=3"]
    assert [(close.code, close.reason) for close in seen.closes] == [(1012, "restart")]
    back = seen.closes[0].back_after
    assert back is not None
    assert back < 2
    assert (seen.events, seen.missed, seen.repeated, result.failures) == (6, [], [], [])


def test_an_event_that_is_left_out_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = follow(Feed(lost=5), monkeypatch)
    assert seen.missed == [5]


def test_the_last_event_counts_although_nothing_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = follow(Feed(lost=6), monkeypatch)
    assert seen.missed == [6]


def test_the_result_survives_its_file_and_its_table_says_it_all(tmp_path: Path) -> None:
    result = Result(seconds=2.0, accepted={"run-1": "signal"})
    result.succeed("POST alert", 0.01)
    result.succeed("GET /api/v1/health", 3.5)
    result.fail("POST alert", "reset", "x" * 1000)
    result.sockets.append(Socket(0, 1, 9, 7, missed=[4], closes=[Close(1.0, 1012, "", 0.25), Close(2.0, 1006, "")]))
    result.write(tmp_path / "result.json")
    again = Result.read(tmp_path / "result.json")
    assert again == result
    table = " ".join(again.table().split())
    for row in (
        "requests 3 (2 a second, 1 of them POST)",
        "failed 1",
        "answers after 3 s 1",
        "their closes, by code 1006: 1, 1012: 1",
        "slowest way back 0.25 s",
        "not back 1",
        "events missed or doubled 1",
        "1 x POST alert: reset: xxx",
    ):
        assert row in table


def ledger_of(signals: list[str], *others: list[str]) -> tuple[list[str], list[str]]:
    """Ask the ledger about two accepted alerts, with these rows in the database."""
    asked: list[str] = []
    rows = iter([signals, *others, [], [], []])

    def query(sql: str) -> list[str]:
        asked.append(sql)
        return next(rows)

    result = Result(accepted={"abc-1": "first", "abc-3": "second"})
    return ledger.problems(result, query), asked


def test_the_ledger_finds_nothing_wrong_with_what_is_right() -> None:
    found, asked = ledger_of(["abc-1|first", "abc-3|second", "abc-5|not answered"])
    assert found == []
    assert all("LIKE 'abc-%'" in sql for sql in asked)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([["abc-1|first"]], "alert abc-3 was answered 202 and is not stored"),
        ([["abc-1|first", "abc-3|second", "abc-3|third"]], "alert abc-3 is stored 2 times"),
        ([["abc-1|first", "abc-3|other"]], "alert abc-3 was answered 202 as second and is stored as other"),
        ([["abc-1|first", "abc-3|second"], ["first|2"]], "signal first has 2 orders"),
        ([["abc-1|first", "abc-3|second"], [], ["o1|0.002"]], "order o1 is filled with 0.002"),
        ([["abc-1|first", "abc-3|second"], [], [], ["first|why"]], "signal first failed: why"),
    ],
)
def test_the_ledger_names_what_is_wrong(rows: list[list[str]], problem: str) -> None:
    found, _ = ledger_of(*rows)
    assert problem in found


def test_the_plan_is_read_by_its_owner_only(tmp_path: Path) -> None:
    plan = Plan("https://127.0.0.1:1", ["/a"], "key", [("other", "/w")])
    plan.write(tmp_path / "new" / "plan.json")
    assert Plan.read(tmp_path / "new" / "plan.json") == plan
    assert (tmp_path / "new" / "plan.json").stat().st_mode & 0o077 == 0


def test_the_default_load_is_what_the_proof_asks_for() -> None:
    given = parser().parse_args(["plan.json"])
    assert given.rate >= 100
    assert given.websockets == 20
    # Idle between two requests for well below the two seconds that nginx grants (keepalive_min_timeout).
    assert 0.2 < given.connections / given.rate < 1
