"""What a handler knows of its call beside the request message."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from sandbox_local.http import Headers
from sandbox_local.rpc.codes import Code, RpcError

_TIMEOUT_MS = re.compile(r"[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True)
class Context:
    """The circumstances of a call.

    Attributes:
        headers: Header fields (with gRPC: the metadata); names in any case.
        sandbox: What the router gave to `Rpc.handle`.
        user: User name of `Authorization: Basic`, or None.
        timeout_ms: `connect-timeout-ms` in milliseconds, or None; gRPC clients may send it as metadata.
    """

    headers: Headers
    sandbox: Any
    user: str | None
    timeout_ms: int | None

    @classmethod
    def of(cls, headers: Headers, sandbox: Any) -> Context:
        """Read the circumstances from the header fields of a request.

        Raises:
            RpcError: `connect-timeout-ms` is not a number of at most ten digits (INVALID_ARGUMENT).
        """
        timeout = headers.get("connect-timeout-ms")
        if timeout is not None and not _TIMEOUT_MS.fullmatch(timeout):
            raise RpcError(Code.INVALID_ARGUMENT, "connect-timeout-ms is not a number of at most ten digits")
        return cls(headers, sandbox, basic_user(headers), None if timeout is None else int(timeout))


def basic_user(headers: Headers) -> str | None:
    """The user name of `Authorization: Basic`, or None."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, _ = base64.b64decode(credentials, validate=True).decode().partition(":")
    except ValueError:
        return None
    return user if colon else None
