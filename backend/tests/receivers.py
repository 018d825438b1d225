"""Servers on loopback that take what we send to the outside: HTTP, HTTPS behind a proxy, SMTP."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.network import free_port


async def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until `condition` holds; fails after `seconds`."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that")


class Answer(NamedTuple):
    """How to answer a request: after `delay` seconds with `status`."""

    status: int = 200
    delay: float = 0.0
    body: bytes = b'{"ok":true,"result":[]}'


class Received(NamedTuple):
    """A request that came in."""

    host: str
    path: str
    body: bytes


class HttpReceiver:
    """An HTTP server. `behave` tells how to answer the n-th request, counted from 1."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[Received] = []
        self.behave: Callable[[int], Answer] = lambda _number: Answer()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def up(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def down(self) -> None:
        """Refuses connections and ends those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.05)

    async def wait_for(self, count: int, seconds: float = 60) -> None:
        """Waits until so many requests came in."""
        await eventually(lambda: len(self.requests) >= count, seconds)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        self.requests.append(Received(fields.get("host", ""), request.split()[1], body))
        answer = self.behave(len(self.requests))
        await asyncio.sleep(answer.delay)
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (answer.status, len(answer.body), answer.body)
        )
        await writer.drain()
        return True


@asynccontextmanager
async def http_receiver() -> AsyncIterator[HttpReceiver]:
    """Gives an HTTP server that listens."""
    receiver = HttpReceiver()
    await receiver.up()
    try:
        yield receiver
    finally:
        await receiver.down()


class TlsProxy:
    """A proxy that takes the place of every https server it is asked for, with certificates of its own CA.

    HTTPS_PROXY and REQUESTS_CA_BUNDLE lead clients here, whatever host their address names.
    """

    def __init__(self, receiver: HttpReceiver, directory: Path, hosts: list[str]) -> None:
        self.port = free_port()
        self.ca = directory / "ca.pem"
        self.asked_for: list[str] = []
        self._receiver = receiver
        self._tls = self._certify(directory, hosts)
        self._server: asyncio.Server | None = None

    async def up(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def down(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked_for.append(head.split()[1])
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self._tls)
            await self._receiver.serve(reader, writer)

    def _certify(self, directory: Path, hosts: list[str]) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file = directory / "key.pem"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key_file)
        return context


class SmtpSink:
    """An SMTP server (RFC 5321, as far as clients need it) that keeps mails; the first `busy` are put off."""

    def __init__(self, busy: int = 0) -> None:
        self.port = free_port()
        self.mails: list[str] = []
        self.recipients: list[str] = []
        self.attempts = 0
        self._busy = busy
        self._server: asyncio.Server | None = None

    async def up(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def down(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.test ESMTP\r\n")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while command := (await reader.readuntil(b"\r\n")).decode().strip():
                verb = command.split()[0].upper()
                writer.write(await self._reply(verb, command, reader, writer))
                await writer.drain()
                if verb == "QUIT":
                    break
        writer.close()

    async def _reply(
        self, verb: str, command: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        if verb == "EHLO":
            return b"250-sink.test\r\n250 AUTH PLAIN LOGIN\r\n"
        if verb == "AUTH":
            return b"235 2.7.0 welcome\r\n"
        if verb == "MAIL":
            self.attempts += 1
            return b"451 4.3.2 come back later\r\n" if self.attempts <= self._busy else b"250 OK\r\n"
        if verb == "RCPT":
            self.recipients.append(command.partition(":")[2])
        if verb == "DATA":
            writer.write(b"354 go on\r\n")
            self.mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
        return b"221 bye\r\n" if verb == "QUIT" else b"250 OK\r\n"
