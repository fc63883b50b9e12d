"""Messages in a stream: five bytes before each give its flags and length. Connect and gRPC share the form."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterable, AsyncIterator, Iterator

from google.protobuf.message import Message

from sandbox_local.rpc.codec import Codec
from sandbox_local.rpc.codes import Code, RpcError
from sandbox_local.rpc.payload import MESSAGE_BYTES, decode

COMPRESSED = 0x01

_PREFIX = struct.Struct(">BI")


def pack(flags: int, payload: bytes) -> bytes:
    """An envelope."""
    return _PREFIX.pack(flags, len(payload)) + payload


class Unpacker:
    """Cuts a stream of bytes, however it is split, into envelopes."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take more bytes; gives the flags and payload of every envelope that is complete now.

        Raises:
            RpcError: An envelope announces more than MESSAGE_BYTES (INVALID_ARGUMENT).
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _PREFIX.size:
                flags, length = _PREFIX.unpack_from(buffer, start)
                if length > MESSAGE_BYTES:
                    raise RpcError(
                        Code.INVALID_ARGUMENT,
                        f"a message of {length} bytes is longer than {MESSAGE_BYTES} bytes",
                    )
                end = start + _PREFIX.size + length
                if len(buffer) < end:
                    return
                payload = bytes(memoryview(buffer)[start + _PREFIX.size : end])
                start = end
                yield flags, payload
        finally:
            del buffer[:start]

    def end(self) -> None:
        """No more bytes will come.

        Raises:
            RpcError: The last envelope is not complete (INVALID_ARGUMENT).
        """
        if self._buffer:
            raise RpcError(Code.INVALID_ARGUMENT, "the request ends in the middle of a message")


async def messages(
    body: AsyncIterable[bytes], kind: type[Message], codec: Codec, encoding: str
) -> AsyncIterator[Message]:
    """The messages of a request body.

    Args:
        body: The bytes as they come.
        kind: Type of the messages.
        codec: How they are written.
        encoding: How those with the COMPRESSED flag are compressed.

    Raises:
        RpcError: The body is not a sequence of such messages (INVALID_ARGUMENT).
    """
    unpacker = Unpacker()
    async for chunk in body:
        for flags, payload in unpacker.feed(chunk):
            if flags & ~COMPRESSED:
                raise RpcError(Code.INVALID_ARGUMENT, f"no request message has the flags {flags:#04x}")
            if flags and encoding == "identity":
                raise RpcError(Code.INVALID_ARGUMENT, "a message is compressed, but the call did not say how")
            yield await decode(payload, kind, codec, encoding if flags else "identity")
    unpacker.end()
