"""Clients that open connections and stall: the others are served meanwhile, and no worker of nginx dies of it."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.load.http import trusting
from tests.stack.host import output_of, wait_until
from tests.testbed import hosts, images, registry

pytestmark = pytest.mark.alone

TRUSTING = trusting()
ROUNDS = 4
# Below those that the engine gives to containers.
ADDRESSES = [f"10.99.0.{number}" for number in range(40, 52)]
# Opens connections in turn from the addresses, and each that is closed again, until its input ends. Says a line when so
# many as are wanted stand and hardly any more get in.
FLOOD = r"""
import asyncio, contextlib, os, socket, ssl, struct, sys

host, form, count, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
addresses = sys.argv[5:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if form == "streams":
    context.set_alpn_protocols(["h2"])
standing = set()
# Else all of them would be done at the end, and none before.
handshakes = asyncio.Semaphore(16)


def path(number):
    return f"/api/v1/webhooks/tradingview/tbw_{number:0>49}"


def body(number):
    head = f"POST {path(number)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    return head.encode() + b"x" * 59_000


def hello(number):
    # Says that it has 128 KiB, and does not send the end of it.
    record = lambda data: b"\x16\x03\x01" + struct.pack(">H", len(data)) + data
    return record(b"\x01\x02\x00\x00\x03\x03" + b"x" * 100) + record(b"x" * 14_000) * 9


def streams(number):
    # Header fields without compression, as large as they may be, and a body that does not end.
    frame = lambda kind, flags, stream, data: (
        struct.pack(">I", len(data))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + data
    )
    short = lambda text: bytes([len(text)]) + text
    field = lambda name, value: b"\x00" + short(name) + short(value)
    # 127 and 7,873 more, as HPACK writes it.
    long = b"\x00" + short(b"x-filler") + bytes([127, 0xC1, 0x3D]) + b"x" * 8000
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    for stream in range(4):
        fields = field(b":method", b"POST") + field(b":scheme", b"https") + field(b":authority", b"localhost")
        fields += field(b":path", path(number * 4 + stream).encode()) + field(b"content-length", b"9999") + long
        sent += frame(1, 4, 2 * stream + 1, fields) + frame(0, 0, 2 * stream + 1, b"x" * 9_900)
    return sent


send = {"bodies": body, "hellos": hello, "streams": streams}[form]


async def stall(number):
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind((addresses[number % len(addresses)], 0))
    tls = {} if form == "hellos" else {"ssl": context, "server_hostname": "localhost"}
    await asyncio.get_running_loop().sock_connect(connection, (host, 443))
    async with handshakes:
        reader, writer = await asyncio.open_connection(sock=connection, **tls)
    try:
        writer.write(send(number))
        await writer.drain()
        standing.add(number)
        await reader.read()
    finally:
        standing.discard(number)
        writer.transport.abort()


async def stall_again(number):
    while True:
        with contextlib.suppress(OSError):
            await stall(number)
        await asyncio.sleep(1)


async def flood():
    tasks = [asyncio.create_task(stall_again(number)) for number in range(count)]
    for _ in range(10):
        before = len(standing)
        await asyncio.sleep(2)
        if len(standing) >= wanted and len(standing) - before < 50:
            break
    print(flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


asyncio.run(flood())
"""


@pytest.fixture(scope="module")
def attacker() -> Iterator[str]:
    """Yield the name of a container on the host's network that has all of ADDRESSES."""
    name = f"tradingbot-attacker-{uuid.uuid4().hex[:8]}"
    image = registry.local_name("python:3.13-slim")
    subprocess.run(
        ["docker", "run", "--detach", "--rm", "--name", name, "--network", registry.NETWORK, image, "sleep", "3600"],
        check=True,
        capture_output=True,
    )
    try:
        in_its_network = ["docker", "run", "--rm", "--network", f"container:{name}", "--cap-add", "NET_ADMIN"]
        add = "; ".join(f"ip address add {address}/24 dev eth0" for address in ADDRESSES)
        subprocess.run(
            [*in_its_network, "--entrypoint", "sh", images.target("trixie"), "-ec", add],
            check=True,
            capture_output=True,
        )
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


Flood = Callable[[str, int, int, int], AbstractContextManager[None]]


@pytest.fixture
def flood(attacker: str, host_address: str, machine: hosts.Host) -> Flood:
    """Holds connections of a form, so many as get in of a count, from so many addresses, while a block runs.

    Fails the test when nginx has not so many as are wanted of them at the end of the block.
    """

    @contextmanager
    def run(form: str, count: int, addresses: int, wanted: int) -> Iterator[None]:
        command = ["python3", "-c", FLOOD, host_address, form, str(count), str(wanted), *ADDRESSES[:addresses]]
        with subprocess.Popen(
            ["docker", "exec", "--interactive", attacker, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            process.stdout.readline()
            yield
            # Those that nginx has just closed are being opened again.
            wait_until(lambda: held(machine) >= wanted, 5, f"nginx has {wanted} connections of the flood", every=0.5)
            process.communicate(timeout=10)

    return run


@pytest.fixture
def unharmed(machine: hosts.Host, https_url: str) -> Iterator[None]:
    """Check that nginx answers after the test, with the processes that it had before, none of which was killed."""
    before = processes(machine)
    yield
    wait_until(lambda: answers(https_url), 10, "nginx does not answer after the flood")
    assert processes(machine) == before


def processes(machine: hosts.Host) -> dict[str, Any]:
    """Return master and workers of nginx, and how many processes of its container the kernel has killed for memory."""
    master = output_of(machine, "docker inspect --format '{{.State.Pid}}' tradingbot-nginx-1")
    # cgroup v2, and v1.
    # The one of cgroup v2 or that of v1: the other one is not there.
    counters = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null || true"
    told = output_of(machine, f"docker exec tradingbot-nginx-1 sh -c '{counters}'")
    killed = re.search(r"^oom_kill (\d+)$", told, re.MULTILINE)
    assert killed, told
    workers = output_of(machine, f"pgrep --parent {master} --full 'nginx: worker process$'").split()
    return {"master": master, "workers": workers, "killed": killed.group(1)}


def held(machine: hosts.Host) -> int:
    """Return how many connections of the attacker's addresses nginx has accepted and not closed."""
    master = output_of(machine, "docker inspect --format '{{.State.Pid}}' tradingbot-nginx-1")
    rows = output_of(machine, f"nsenter --target {master} --net ss -Htnp state established").splitlines()
    # Of those that wait to be accepted, no process has a file.
    return sum('"nginx"' in row and row.split()[3].rpartition(":")[0] in ADDRESSES for row in rows)


def ask(url: str) -> float:
    """Return the seconds of a health request on a connection of its own. Raises OSError when it is not answered 200."""
    start = time.monotonic()
    with urllib.request.urlopen(f"{url}/api/v1/health", timeout=5, context=TRUSTING) as answer:
        answer.read()
    return time.monotonic() - start


def answers(url: str) -> bool:
    """Return whether a health request is answered."""
    try:
        ask(url)
    except OSError:
        return False
    return True


def test_stalled_bodies_leave_the_others_served(flood: Flood, https_url: str, unharmed: None) -> None:
    """Three clients with 1,220 connections each: what killed a worker when one of them did so."""
    with flood("bodies", 3_660, 3, 150):
        # All are answered. What else runs on the machine may slow down a round; the flood is there in each.
        slowest: list[float] = []
        while len(slowest) < ROUNDS and not any(seconds < 0.1 for seconds in slowest):
            slowest.append(max(ask(https_url) for _ in range(50)))
    assert slowest[-1] < 0.1, slowest


@pytest.mark.parametrize("form", ["hellos", "streams"])
def test_the_worst_on_all_connections_fits_the_memory(flood: Flood, host: Any, form: str, unharmed: None) -> None:
    """More clients than the limits by address leave room for: new connections are refused, and that is all."""
    text = host.file("/opt/tradingbot/nginx/conf/nginx.conf").content_string
    (workers,) = re.findall(r"^worker_processes (\d+);$", text, re.MULTILINE)
    (connections,) = re.findall(r"^ *worker_connections (\d+);$", text, re.MULTILINE)
    with flood(form, 768, 12, int(workers) * int(connections) * 8 // 10):
        pass
