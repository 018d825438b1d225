"""The real command with real workers, from its first line of log to its last."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.conftest import Account
from tests.forked import run
from tests.network import free_port, proxy_to
from tests.receivers import eventually
from tests.ws_client import (
    close_code,
    listen,
    protocols,
    publishing,
    record_events,
    sequences,
    url,
    user_id_of,
)
from tradingbot.core.settings import Settings


@asynccontextmanager
async def serving(tmp_path: Path, workers: int, **variables: str) -> AsyncIterator[tuple[int, Path]]:
    """Runs `tradingbot serve`; gives its port and its log."""
    port, log = free_port(), tmp_path / "serve.log"
    environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(port), "WORKERS": str(workers)} | variables
    with log.open("w") as output:
        process = _start(environment, output)
    try:
        await _until_healthy(port, process)
        yield port, log
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _start(environment: dict[str, str], output: TextIO) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["tradingbot", "serve"], env=environment, stdout=output, stderr=output)


async def _until_healthy(port: int, process: "subprocess.Popen[bytes]") -> None:
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{port}/api/v1/health")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise AssertionError("the server ended")


async def test_live_events_reach_clients_of_every_worker_and_shutdown_closes_them(
    tmp_path: Path, account: Account, environment: dict[str, str]
) -> None:
    async with serving(tmp_path, 3) as (port, log):
        sockets = [await listen(port, account) for _ in range(12)]
        async with publishing(Settings()) as database:
            await record_events(database, await user_id_of(database, account), 50)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            wrong = await client.post(
                account.webhook, json={"symbol": "A", "action": "buy", "secret": "hush-1234"}
            )
            assert wrong.status_code == 403
        for socket in sockets:
            assert await sequences(socket, 50) == list(range(1, 51))
        assert len({_worker(line) for line in log.read_text().splitlines() if "Started server" in line}) == 3
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(port), subprotocols=[Subprotocol("tradingbot.v1"), Subprotocol("ticket.wrong")])
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body or b"")["status"] == 401
        closing = [asyncio.create_task(close_code(socket)) for socket in sockets]
        os.kill(_parent(log), signal.SIGTERM)
        assert set(await asyncio.wait_for(asyncio.gather(*closing), 60)) == {1012}
    text = log.read_text()
    for secret in _secrets(environment, account):
        assert secret not in text
    for line in text.splitlines():
        json.loads(line)


async def test_clients_of_every_worker_reconnect_when_the_web_server_is_replaced(
    tmp_path: Path, account: Account, environment: dict[str, str]
) -> None:
    async with serving(tmp_path, 2) as (port, log):
        for _ in range(2):
            closing = [asyncio.create_task(close_code(await listen(port, account))) for _ in range(8)]
            os.kill(_parent(log), signal.SIGUSR1)
            assert set(await asyncio.wait_for(asyncio.gather(*closing), 20)) == {1012}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/api/v1/health")).status_code == 200
    assert "died" not in log.read_text()


def _worker(line: str) -> str:
    return str(json.loads(line)["event"])


def _parent(log: Path) -> int:
    (line,) = [line for line in log.read_text().splitlines() if "Started parent process" in line]
    return int(json.loads(line)["event"].split("[")[1].rstrip("]"))


def _secrets(environment: dict[str, str], account: Account) -> list[str]:
    passwords = [environment[name].split("@")[0].rpartition(":")[2] for name in ("DATABASE_URL", "REDIS_URL")]
    keys = [environment[name] for name in ("SECRET_KEY", "WEBHOOK_SECRET", "ENCRYPTION_KEY")]
    return [*passwords, *keys, account.token, account.api_key, "hush-1234"]


async def test_large_chunked_body_over_the_wire(
    tmp_path: Path, account: Account, environment: dict[str, str]
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65536

    async with (
        serving(tmp_path, 1) as (port, _log),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answer = await client.post(account.webhook, content=chunks())
        assert answer.status_code == 413
        assert (await client.get("/api/v1/health")).status_code == 200


async def test_a_killed_worker_is_replaced(tmp_path: Path, environment: dict[str, str]) -> None:
    async with serving(tmp_path, 2) as (port, log):
        await until_started(log, 2)
        first, _second = workers_of(log)
        os.kill(first, signal.SIGKILL)
        await until_started(log, 3)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(10):
                assert (await client.get("/api/v1/health")).status_code == 200


def workers_of(log: Path) -> list[int]:
    """Process ids of the workers that have started, also of those that are gone."""
    started = [line for line in log.read_text().splitlines() if "Started server process" in line]
    return [int(_worker(line).split("[")[1].rstrip("]")) for line in started]


async def until_started(log: Path, count: int) -> None:
    """Waits until so many workers have started."""
    await eventually(lambda: len(workers_of(log)) >= count)


async def test_client_that_does_not_answer_pings_is_closed(
    tmp_path: Path, account: Account, environment: dict[str, str]
) -> None:
    async with serving(tmp_path, 1, WEBSOCKET_PING_INTERVAL="0.3") as (port, _log):
        lively = await listen(port, account)
        offered = ", ".join(await protocols(port, account))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: " + offered.encode() + b"\r\n\r\n"
        )
        received = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert received.startswith(b"HTTP/1.1 101")
        assert b"\x89" in received
        pong = await lively.ping()
        await asyncio.wait_for(pong, 60)
        await lively.close()


def refused_start(**variables: str) -> tuple[int, str]:
    """Runs `tradingbot serve` that is expected to give up; gives exit code and all that it said."""
    result = run("serve", **({"STARTUP_TIMEOUT": "1", "PORT": str(free_port())} | variables))
    return result.returncode, result.stdout + result.stderr


def test_wrong_password(environment: dict[str, str]) -> None:
    head, _, tail = environment["DATABASE_URL"].partition("@")
    wrong = f"{head.rpartition(':')[0]}:Wr0ngPw4Test@{tail}"
    code, output = refused_start(DATABASE_URL=wrong)
    assert code == 1
    user = head.rpartition("/")[2].partition(":")[0]
    assert f"refuses user {user}: wrong password or user" in output
    assert "Wr0ngPw4Test" not in output


def test_unknown_database(environment: dict[str, str]) -> None:
    code, output = refused_start(DATABASE_URL=f"{environment['DATABASE_URL'].rpartition('/')[0]}/nowhere")
    assert code == 1
    assert "has no database nowhere" in output


def test_nobody_answers(environment: dict[str, str]) -> None:
    port = free_port()
    head, _, tail = environment["DATABASE_URL"].rpartition("@")
    code, output = refused_start(DATABASE_URL=f"{head}@127.0.0.1:{port}/{tail.rpartition('/')[2]}")
    assert code == 1
    assert f"PostgreSQL at 127.0.0.1:{port} does not answer: connection refused (waited 1 s)" in output


@pytest.mark.parametrize("trouble", ["refused", "silent", "another password", "no name"])
async def test_without_redis_it_starts_at_once_and_takes_alerts(
    tmp_path: Path, account: Account, environment: dict[str, str], trouble: str
) -> None:
    address = environment["REDIS_URL"].rpartition("@")[2]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {
            "refused": f"redis://:Xa8sdKq2Test@127.0.0.1:{free_port()}/0",
            "silent": f"redis://:Xa8sdKq2Test@127.0.0.1:{silent.getsockname()[1]}/0",
            "another password": f"redis://:Wr0ngPw4Test@{address}",
            "no name": "redis://:Xa8sdKq2Test@nowhere.invalid:6379/0",
        }
        started = time.monotonic()
        async with serving(tmp_path, 1, REDIS_URL=urls[trouble]) as (port, log):
            # `startup_timeout` is 60 s: it must not be waited for, with alerts refused meanwhile.
            assert time.monotonic() - started < 30
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                alert = {"ticker": "BTCUSDT", "action": "buy"}
                assert (await client.post(account.webhook, json=alert)).status_code == 202
                ready = await client.get("/api/v1/health/ready")
                assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
                assert ready.json()["checks"] == {
                    "postgresql": "ok",
                    "redis": "does not answer",
                    "schema": "ok",
                }
                ticket = await client.post("/api/v1/ws/tickets", headers={"X-API-Key": account.api_key})
                assert ticket.status_code == 503
        said = log.read_text()
        assert "Redis at" in said
        assert "Wr0ngPw4Test" not in said


async def test_redis_that_comes_later_is_used(
    tmp_path: Path, account: Account, environment: dict[str, str], redis_url: str
) -> None:
    async with proxy_to(redis_url) as proxy:
        await proxy.cut()
        async with serving(tmp_path, 2, REDIS_URL=proxy.url) as (port, _log):
            await proxy.open()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                for _ in range(200):
                    if (await client.get("/api/v1/health/ready")).json()["status"] == "ready":
                        break
                    await asyncio.sleep(0.1)
                live = await listen(port, account)
                answer = await client.post(account.webhook, json={"ticker": "BTCUSDT", "action": "buy"})
                assert answer.status_code == 202
            await live.close()


def test_unresolvable_name(environment: dict[str, str]) -> None:
    code, output = refused_start(
        DATABASE_URL="postgresql://tradingbot:Xa8sdKq2@nowhere.invalid:5432/tradingbot"
    )
    assert code == 1
    assert "PostgreSQL at nowhere.invalid:5432 does not answer: its name does not resolve" in output


def test_directory_that_cannot_be_made(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output = refused_start(LOGS_DIR=str(tmp_path / "file" / "logs"))
    assert code == 1
    assert "LOGS_DIR=" in output


def test_placeholder(environment: dict[str, str]) -> None:
    code, output = refused_start(SECRET_KEY="changeme", WEBHOOK_SECRET="kqz9" * 12)
    assert code == 2
    assert "SECRET_KEY is a placeholder" in output
    assert "WEBHOOK_SECRET has fewer than 10 different characters" in output
    assert "Traceback" not in output
