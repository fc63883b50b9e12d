"""The gRPC protocol, and its variant for clients that can't read HTTP trailers (gRPC-Web)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from sandbox_local.http import Headers, Request, Response
from sandbox_local.rpc.call import Deadline, Endpoint
from sandbox_local.rpc.codec import Codec
from sandbox_local.rpc.codes import Code, RpcError
from sandbox_local.rpc.context import Context
from sandbox_local.rpc.envelope import messages, pack
from sandbox_local.rpc.payload import ENCODINGS, check_encoding, encode

_TRAILERS = 0x80
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


async def call(
    endpoint: Endpoint, request: Request, sandbox: Any, codec: Codec, content_type: str
) -> Response:
    """Answer a call of any method; how it ended stands in the trailers."""
    trailers = Headers()

    async def body() -> AsyncIterator[bytes]:
        try:
            context = Context.of(request.headers, sandbox)
            timeout = _timeout(request.headers)
            encoding = check_encoding(request.headers.get("grpc-encoding", "identity"))
            requests = messages(request.body, endpoint.method.request, codec, encoding)
            async with aclosing(endpoint.run(requests, context, Deadline(timeout))) as answers:
                async for answer in answers:
                    yield pack(0, await encode(answer, codec))
        except RpcError as error:
            _conclude(trailers, error)
        else:
            trailers.set("grpc-status", "0")
        if web:
            lines = "".join(f"{name}: {value}\r\n" for name, value in trailers.fields())
            yield pack(_TRAILERS, lines.encode("ascii"))

    web = content_type.startswith("application/grpc-web")
    headers = {"content-type": content_type, "grpc-accept-encoding": ",".join(ENCODINGS)}
    return Response(200, headers, body(), trailers=None if web else trailers)


def failure(error: RpcError, content_type: str) -> Response:
    """The answer to a call that failed before there was anything to say: trailers only, in the head."""
    response = Response(200, {"content-type": content_type})
    _conclude(response.headers, error)
    return response


def _conclude(trailers: Headers, error: RpcError) -> None:
    trailers.set("grpc-status", str(error.code.number))
    trailers.set("grpc-message", quote(error.message, safe=_PLAIN))


def _timeout(headers: Headers) -> float | None:
    """Seconds that the client gives the call."""
    value = headers.get("grpc-timeout")
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise RpcError(Code.INVALID_ARGUMENT, "grpc-timeout is not at most eight digits and a unit")
    return int(match[1]) * _UNIT_SECONDS[match[2]]
