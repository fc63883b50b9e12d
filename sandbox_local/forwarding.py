"""A TCP port of this machine whose connections lead to a port of a sandbox, through the sandbox server.

It speaks to the server as any client does, so the server may have been started by anyone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_PIECE = 64 << 10
_ANSWER_BYTES = 64 << 10
_ANSWER_SECONDS = 15.0


class ForwardError(Exception):
    """The port can't be reached; the message says why and what to do."""


@dataclass(frozen=True)
class Target:
    """A port of a sandbox, and the way there.

    Attributes:
        url: Of the sandbox server.
        sandbox_id: The sandbox.
        port: Its port.
        traffic_token: What its ports ask for, if they are closed to the public.
    """

    url: str
    sandbox_id: str
    port: int
    traffic_token: str | None = field(default=None, repr=False)

    async def check(self) -> None:
        """See whether the server is there and has the sandbox.

        Raises:
            ForwardError: It is not, or it has not.
        """
        _, writer = await self._ask("GET /health", 49983)
        writer.transport.abort()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the port.

        Raises:
            ForwardError: That can't be done.
        """
        authority = f"{self.port}-{self.sandbox_id}.localhost:{self.port}"
        return await self._ask(f"CONNECT {authority}", self.port)

    async def _ask(self, what: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the head of a request and wait for the head of an answer, which must say success."""
        try:
            return await asyncio.wait_for(self._exchange(what, port), _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            raise ForwardError(f"{self.url} gave no answer in {_ANSWER_SECONDS:g} s") from None
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
            raise ForwardError(f"{self.url} can't be reached: {error}") from None

    async def _exchange(self, what: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self.url)
        secured = ssl.create_default_context() if url.scheme == "https" else None
        where = url.port or (443 if secured else 80)
        reader, writer = await asyncio.open_connection(url.hostname, where, ssl=secured, limit=_ANSWER_BYTES)
        try:
            fields = {
                "Host": url.netloc.rpartition("@")[2],
                "E2b-Sandbox-Id": self.sandbox_id,
                "E2b-Sandbox-Port": str(port),
                **({"E2b-Traffic-Access-Token": self.traffic_token} if self.traffic_token else {}),
            }
            lines = [f"{what} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
            writer.write("\r\n".join(lines).encode("latin-1"))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = head.split(" ", 2)[1]
            if not status.startswith("2"):
                raise ForwardError(await _reason(status, head, reader))
            return reader, writer
        except BaseException:
            writer.transport.abort()
            raise


class Forwarding:
    """Accepts connections and leads each to the target.

    Args:
        target: Where they lead.
        complain: Called with why a connection could not be led there.
    """

    def __init__(self, target: Target, complain: Callable[[str], None]) -> None:
        self._target = target
        self._complain = complain
        self._running: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Listen on an address of this machine.

        Raises:
            OSError: It can't be had.
        """
        return await asyncio.start_server(self._accept, host, port)

    async def close(self) -> None:
        """Cut the connections that are open."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            inner_reader, inner_writer = await self._target.open()
            try:
                await _both(_copy(reader, inner_writer), _copy(inner_reader, writer))
            finally:
                await _let_go(inner_writer)
        except ForwardError as error:
            self._complain(str(error))
        except (ConnectionError, asyncio.CancelledError):
            pass  # one side broke off, or this program ends
        finally:
            self._running.discard(task)
            await _let_go(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what is read, and its end: the other direction goes on."""
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _both(*directions: Coroutine[Any, Any, None]) -> None:
    """Run both directions; the first that breaks off ends the other."""
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _let_go(writer: asyncio.StreamWriter) -> None:
    """Close a connection once what is unsent is sent, or at once if it broke."""
    writer.close()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await asyncio.wait_for(writer.wait_closed(), 1)


async def _reason(status: str, head: str, reader: asyncio.StreamReader) -> str:
    """What an answer that is no success says."""
    length = next(
        (line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length:")),
        "0",
    )
    text = await reader.readexactly(min(int(length), _ANSWER_BYTES))
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, LookupError, TypeError):
        message = text.decode("utf-8", "replace").strip()
    return f"the server answered {status}: {message[:500]}"
