"""Raw connections to a port inside a box, and the relay of bytes between one and a client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from sandbox_local.http import ByteStream, Response, Tunnel
from sandbox_local.isolation.base import Box

PIECE = 64 << 10
"""The most bytes that are taken from a connection at once."""

# A server that was started a moment ago may not listen yet.
_PAUSES = (0.1, 0.2, 0.3, 0.4)
_CONNECT_SECONDS = 5.0


class PortClosed(Exception):
    """Nothing in the box listens on the port, or it does not speak HTTP; `message` says it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


async def dial(box: Box, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port of a box.

    Raises:
        PortClosed: Nothing listens there.
        BoxGone: The box has ended.
    """
    for pause in (*_PAUSES, None):
        try:
            sock = await asyncio.wait_for(box.connect(port), _CONNECT_SECONDS)
        except ConnectionRefusedError:
            if pause is not None:
                await asyncio.sleep(pause)
        except asyncio.TimeoutError:
            break
        else:
            return await asyncio.open_connection(sock=sock)
    raise PortClosed("The sandbox is running but port is not open")


async def tunnel(box: Box, port: int) -> Response:
    """Answer CONNECT: from here on the connection of the client is one to the port. Raises as `dial`."""
    reader, writer = await dial(box, port)
    return Response(200, {}, Tunnel(lambda client: relay(client, reader, writer, box.ended)))


async def relay(
    client: ByteStream,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    box_ended: asyncio.Future[str],
    first: bytes = b"",
) -> None:
    """Pass bytes on until both sides have closed theirs, or one breaks off.

    Args:
        client: The connection of the client.
        reader: What the box sends.
        writer: What the box is sent.
        box_ended: Resolves when the box has ended, which a client that only listens would not notice.
        first: What the box has sent already.
    """
    inward = asyncio.get_running_loop().create_task(_inward(client, writer))
    try:
        data = first
        while data or (data := await reader.read(PIECE)):
            await client.write(data)
            data = b""
        await client.end()
        waited_for: list[asyncio.Future[Any]] = [inward, box_ended]
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if inward.done():
            writer.close()  # what the box has not read yet still goes to it
    except ConnectionError:
        pass  # one side is gone, so the other is of no use
    finally:
        inward.cancel()
        await asyncio.wait([inward])
        if not writer.is_closing():
            writer.transport.abort()


async def _inward(client: ByteStream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        async for chunk in client.incoming:
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
