"""A TCP proxy that can be cut, and free ports."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

# Below the ports that outgoing connections get, and a range for each of pytest-xdist's processes: what is
# free now is not taken by somebody else before it is used.
_RANGE = 4000
_FIRST = 16000 + _RANGE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", _FIRST + secrets.randbelow(_RANGE)))
            return int(probe.getsockname()[1])


class CuttableProxy:
    """Stands between us and a server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self.port = free_port()
        self.url = url.replace(f"@{parts.hostname}:{parts.port}", f"@127.0.0.1:{self.port}")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._speaking = asyncio.Event()
        self._speaking.set()

    def silence(self) -> None:
        """Keeps connections open and passes nothing on."""
        self._speaking.clear()

    def speak(self) -> None:
        """Passes on what was held back."""
        self._speaking.set()

    async def open(self) -> None:
        """Lets connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Ends all connections and refuses new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.hang_up()

    async def hang_up(self) -> None:
        """Ends all connections; new ones get through."""
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection(*self._target)
            self._writers |= {writer, there_writer}
            try:
                await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
            finally:
                self._writers -= {writer, there_writer}
                for end in (writer, there_writer):
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._speaking.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[CuttableProxy]:
    """Gives an open proxy to the server of `url`."""
    proxy = CuttableProxy(url)
    await proxy.open()
    try:
        yield proxy
    finally:
        proxy.speak()
        await proxy.cut()
