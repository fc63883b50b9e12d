"""Connect on the wire: messages out, events in, in a form that does not depend on how they were cut."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import requests
from google.protobuf import json_format
from google.protobuf.message import Message
from sandbox_sync_rpc import services
from sandbox_sync_rpc.services import Method

END = 0x02

METHODS: dict[str, Method] = {
    method.path.lstrip("/"): method
    for service in (services.PROCESS, services.FILESYSTEM)
    for method in service.methods.values()
}


def streams(method: Method) -> bool:
    """Whether its messages travel in envelopes."""
    return method.client_streaming or method.server_streaming


def encode(message: Any, kind: type[Message], codec: str) -> bytes:
    """A message as JSON says it, on the wire; a text is sent as it is, for what is malformed."""
    if isinstance(message, str):
        return message.encode()
    if codec == "json":
        return json.dumps(message).encode()
    return json_format.ParseDict(message, kind()).SerializeToString()


def decode(data: bytes, kind: type[Message], codec: str) -> Any:
    """The other way round."""
    return json.loads(data) if codec == "json" else json_format.MessageToDict(kind.FromString(data))


def pack(payload: bytes, flags: int = 0) -> bytes:
    """An envelope."""
    return struct.pack(">BI", flags, len(payload)) + payload


def messages(response: requests.Response, kind: type[Message], codec: str) -> Iterator[dict[str, Any]]:
    """What comes out of a stream: messages, and last `{"end of stream": ...}` or `{"cut": true}`."""
    while True:
        prefix = response.raw.read(5)
        if len(prefix) < 5:
            yield {"cut": True}
            return
        flags, length = struct.unpack(">BI", prefix)
        payload = response.raw.read(length)
        if flags & END:
            yield {"end of stream": json.loads(payload or b"{}")}
            return
        yield decode(payload, kind, codec)


def events(said: list[dict[str, Any]]) -> list[Any]:
    """The events that messages tell of: output that was cut into pieces is whole again."""
    told: list[Any] = []
    for message in said:
        event = message.get("event", message)
        output = event.get("data")
        if output is not None:
            [(name, text)] = output.items()
            piece = base64.b64decode(text).decode("utf-8", "replace")
            if told and isinstance(told[-1], dict) and name in told[-1]:
                told[-1] = {name: told[-1][name] + piece}
            else:
                told.append({name: piece})
        elif "keepalive" in event:
            if told[-1:] != ["keepalive"]:
                told.append("keepalive")
        else:
            told.append(event)
    return told
