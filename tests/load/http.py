"""HTTP/1.1 on one connection that stays open. Nothing is ever sent twice, and a failure says at what point it came."""

from __future__ import annotations

import asyncio
import select
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT = 10.0


class RequestError(Exception):
    """A request without an answer. `kind` is refused, reset, timeout or protocol."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


def trusting() -> ssl.SSLContext:
    """The certificate is self-signed, and the way is loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """A connection that is opened when it is needed, and again when the server is known to have closed it."""

    def __init__(self, url: str, context: ssl.SSLContext, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        self.authority = parts.netloc
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._context = context if parts.scheme == "https" else None
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        # How often a connection was found closed before anything was written to it: no failure.
        self.reconnects = 0

    async def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send one request, once, and return its answer. Raises RequestError."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._request(method, path, body, headers or {})
        except TimeoutError:
            self.close()
            raise RequestError("timeout", f"{method}: no answer within {self._timeout:g} s") from None
        except RequestError:
            self.close()
            raise

    async def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        reader, writer = await self._open()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.authority}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
            answer = await _read(reader)
        except (OSError, EOFError) as error:
            raise RequestError("reset", f"{method}, after it was sent: {type(error).__name__}: {error}") from error
        except ValueError as error:
            raise RequestError("protocol", f"{method}: {error}") from error
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams and self._is_closed(*self._streams):
            self.close()
            self.reconnects += 1
        if not self._streams:
            try:
                self._streams = await asyncio.open_connection(self._host, self._port, ssl=self._context)
            except OSError as error:
                raise RequestError("refused", f"{type(error).__name__}: {error}") from error
        return self._streams

    @staticmethod
    def _is_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Tell whether the server's FIN is here, in the event loop or still in the kernel."""
        if reader.at_eof() or writer.is_closing():
            return True
        kernel = select.poll()
        kernel.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(kernel.poll(0))

    def close(self) -> None:
        """Close the connection at once. The next request opens another."""
        if self._streams:
            self._streams[1].transport.abort()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise ValueError(f"not an answer: {head[0]!r}")
    named = (line.partition(":") for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in named}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(words[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body
