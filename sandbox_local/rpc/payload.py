"""One message as it travels: written by a codec, perhaps compressed."""

from __future__ import annotations

import asyncio
import zlib

from google.protobuf.message import Message

from sandbox_local.rpc.codec import Codec
from sandbox_local.rpc.codes import Code, RpcError

MESSAGE_BYTES = 64 << 20
"""The most bytes that one request message may have, compressed or not."""
ENCODINGS = ("gzip", "identity")
"""The compressions that requests may have."""


def check_encoding(encoding: str) -> str:
    """`encoding` in canonical form.

    Raises:
        RpcError: It is not known here (UNIMPLEMENTED).
    """
    encoding = encoding.strip().lower()
    if encoding not in ENCODINGS:
        raise RpcError(
            Code.UNIMPLEMENTED, f"unknown compression {encoding[:40]!r}: send {' or '.join(ENCODINGS)}"
        )
    return encoding


async def decode(data: bytes, kind: type[Message], codec: Codec, encoding: str) -> Message:
    """The message in a payload; a large one is read in a thread, as the loop has others to serve.

    Args:
        data: The payload.
        kind: Type of the message.
        codec: How it is written.
        encoding: How it is compressed, one of ENCODINGS.

    Raises:
        RpcError: It is no such message (INVALID_ARGUMENT).
    """
    if encoding == "identity" and len(data) <= codec.quick_bytes:
        return codec.decode(data, kind)
    return await asyncio.to_thread(_decode, data, kind, codec, encoding)


async def encode(message: Message, codec: Codec) -> bytes:
    """The payload of a message; a large one is written in a thread, as the loop has others to serve."""
    if message.ByteSize() <= codec.quick_bytes:
        return codec.encode(message)
    return await asyncio.to_thread(codec.encode, message)


def decompress(data: bytes) -> bytes:
    """Undo gzip, up to MESSAGE_BYTES.

    Raises:
        RpcError: The data are no gzip, or longer than that (INVALID_ARGUMENT).
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = inflater.decompress(data, MESSAGE_BYTES + 1)
    except zlib.error:
        raise RpcError(Code.INVALID_ARGUMENT, "a compressed message is not valid gzip") from None
    if len(plain) > MESSAGE_BYTES:
        raise RpcError(Code.INVALID_ARGUMENT, f"a compressed message is longer than {MESSAGE_BYTES} bytes")
    if not inflater.eof or inflater.unused_data:
        raise RpcError(Code.INVALID_ARGUMENT, "a compressed message is not one whole gzip stream")
    return plain


def _decode(data: bytes, kind: type[Message], codec: Codec, encoding: str) -> Message:
    return codec.decode(decompress(data) if encoding == "gzip" else data, kind)
