"""The Connect protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message

from sandbox_local.http import Request, Response
from sandbox_local.rpc.call import Deadline, Endpoint
from sandbox_local.rpc.codec import Codec
from sandbox_local.rpc.codes import Code, RpcError
from sandbox_local.rpc.context import Context
from sandbox_local.rpc.envelope import messages, pack
from sandbox_local.rpc.payload import ENCODINGS, MESSAGE_BYTES, check_encoding, decode, encode

_END_OF_STREAM = 0x02
_ACCEPTED = ",".join(ENCODINGS)


async def unary(
    endpoint: Endpoint, request: Request, sandbox: Any, codec: Codec, content_type: str
) -> Response:
    """Answer a call of a unary method: bare messages, errors as JSON with an HTTP status."""
    try:
        context = _context(request, sandbox)
        encoding = check_encoding(request.headers.get("content-encoding", "identity"))
        requests = _bare_message(request, endpoint.method.request, codec, encoding)
        async with aclosing(endpoint.run(requests, context, _deadline(endpoint, context))) as answers:
            answer = await anext(answers)
    except RpcError as error:
        return Response.json(error.code.http_status, _error(error), {"accept-encoding": _ACCEPTED})
    return Response(
        200, {"content-type": content_type, "accept-encoding": _ACCEPTED}, await encode(answer, codec)
    )


async def streaming(
    endpoint: Endpoint, request: Request, sandbox: Any, codec: Codec, content_type: str
) -> Response:
    """Answer a call of a streaming method: enveloped messages, the last envelope tells how it ended."""

    async def body() -> AsyncIterator[bytes]:
        end: dict[str, Any] = {}
        try:
            context = _context(request, sandbox)
            encoding = check_encoding(request.headers.get("connect-content-encoding", "identity"))
            requests = messages(request.body, endpoint.method.request, codec, encoding)
            async with aclosing(endpoint.run(requests, context, _deadline(endpoint, context))) as answers:
                async for answer in answers:
                    yield pack(0, await encode(answer, codec))
        except RpcError as error:
            end["error"] = _error(error)
        yield pack(_END_OF_STREAM, json.dumps(end).encode())

    return Response(200, {"content-type": content_type, "connect-accept-encoding": _ACCEPTED}, body())


def _context(request: Request, sandbox: Any) -> Context:
    version = request.headers.get("connect-protocol-version", "1")
    if version != "1":
        raise RpcError(Code.INVALID_ARGUMENT, f"connect-protocol-version {version[:20]!r} is not 1")
    return Context.of(request.headers, sandbox)


def _deadline(endpoint: Endpoint, context: Context) -> Deadline:
    if context.timeout_ms is None or (context.timeout_ms > 0 and endpoint.owns_deadline):
        return Deadline(None)
    return Deadline(context.timeout_ms / 1000)


async def _bare_message(
    request: Request, kind: type[Message], codec: Codec, encoding: str
) -> AsyncIterator[Message]:
    data = await request.body.read(MESSAGE_BYTES)
    yield await decode(data, kind, codec, encoding)


def _error(error: RpcError) -> dict[str, str]:
    return {"code": error.code.label, "message": error.message}
