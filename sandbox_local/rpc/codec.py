"""Protobuf messages as bytes: binary or JSON."""

from __future__ import annotations

import json
from typing import Protocol

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from sandbox_local.rpc.codes import Code, RpcError

_EXCERPT = 200


class Codec(Protocol):
    """One way of writing messages.

    Attributes:
        quick_bytes: Length of a message up to which reading or writing it takes no more than milliseconds.
    """

    quick_bytes: int

    def encode(self, message: Message) -> bytes:
        """The message as bytes."""

    def decode(self, data: bytes, kind: type[Message]) -> Message:
        """The message of type `kind` that the bytes stand for; fields that `kind` does not know are no error.

        Raises:
            RpcError: They stand for none (INVALID_ARGUMENT).
        """


class _Proto:
    quick_bytes = 4 << 20

    def encode(self, message: Message) -> bytes:
        return message.SerializeToString()

    def decode(self, data: bytes, kind: type[Message]) -> Message:
        try:
            return kind.FromString(data)
        except DecodeError as error:
            raise _malformed("protobuf", error) from None


class _Json:
    quick_bytes = 128 << 10

    def encode(self, message: Message) -> bytes:
        return json.dumps(json_format.MessageToDict(message), separators=(",", ":")).encode()

    def decode(self, data: bytes, kind: type[Message]) -> Message:
        message = kind()
        try:
            if data.lstrip()[:1] != b"{":
                raise ValueError("expected an object")
            json_format.Parse(data.decode("utf-8"), message, ignore_unknown_fields=True)
        except (json_format.ParseError, ValueError, RecursionError) as error:
            raise _malformed("JSON", error) from None
        return message


def _malformed(form: str, error: Exception) -> RpcError:
    return RpcError(
        Code.INVALID_ARGUMENT, f"the request message is not valid {form}: {str(error)[:_EXCERPT]}"
    )


PROTO: Codec = _Proto()
JSON: Codec = _Json()
