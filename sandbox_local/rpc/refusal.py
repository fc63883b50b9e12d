"""Refusals that come before RPC has a say, such as a wrong token, in the words of the caller's protocol."""

from __future__ import annotations

from sandbox_local.http import HttpError, Request, Response
from sandbox_local.rpc import grpc
from sandbox_local.rpc.codes import Code, RpcError

_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ALREADY_EXISTS,
    413: Code.RESOURCE_EXHAUSTED,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def refuse(request: Request, error: HttpError) -> Response:
    """The answer to a request that failed with an HTTP status.

    A gRPC client gets status and message in trailers: it does not look at the body of another answer. All
    others, Connect included, expect the status itself and JSON.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type.startswith("application/grpc"):
        return Response.error(error)
    return grpc.failure(RpcError(_CODES.get(error.status, Code.UNKNOWN), error.message), content_type)
