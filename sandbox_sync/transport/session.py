"""Plain HTTP calls of the generated operations, on our own connections."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlencode

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport.failures import HTTPFailure
from sandbox_sync.transport.files import Payload
from sandbox_sync.transport.pools import Body, Origin, read_all
from sandbox_sync.transport.sockets import time_limit

if TYPE_CHECKING:
    import requests
    from sandbox_sync_rest.client import Request

_JSON = {"content-type": "application/json"}
_VALUE = re.compile(r"(?:\S[^\r\n]*)?")


class Answer(NamedTuple):
    """An answer that has been read: as much of a `requests.Response` as the generated operations look at.

    requests itself is left out of it: measured, loading it is a good part of what a program takes to start,
    and its sessions of what a call takes here.

    Attributes:
        status_code: Its status.
        headers: Its headers, whose names may be asked for in any case.
        content: Its body.
    """

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class HTTPSession:
    """Sends requests of generated operations to one server.

    Args:
        base_url: Its URL.
        config: How to reach it.
        headers: Headers of every request.
        secret: What must not be seen in an error, even if the server quotes it.
    """

    def __init__(
        self, base_url: str, config: ConnectionConfig, headers: Mapping[str, str], secret: str | None
    ) -> None:
        self._config = config
        self._secret = secret
        self._origin = Origin(base_url, config)
        self._headers = _merged({"accept": "application/json", "accept-encoding": "identity"}, headers)

    def attempt(
        self,
        request: Request,
        extra: Mapping[str, str],
        deadline: Deadline,
        silence: float | None = None,
        body: Payload | None = None,
    ) -> requests.Response:
        """Send a request once.

        Args:
            request: The request.
            extra: More headers.
            deadline: When it has to be over.
            silence: Seconds for which nothing may move; None for any time.
            body: What to send, unless the request has a body itself.

        Raises:
            Failure: There is no answer, or its status is not one of success. Errors of the body are raised as
                they are.
            InvalidArgumentException: The request cannot be written as HTTP.
        """
        content: Body = body
        kind: Mapping[str, str] = {} if body is None else body.headers
        try:
            if body is None and request.json is not None:
                content, kind = json.dumps(request.json, allow_nan=False).encode(), _JSON
            target = f"{request.path}?{urlencode(request.params)}" if request.params else request.path
            headers = _merged(self._headers, kind, request.headers, extra)
        except ValueError:
            raise _not_http(request) from None
        if not all(_VALUE.fullmatch(value) for value in headers.values()):
            raise _not_http(request)  # without its value, which may be a secret
        limit = time_limit(deadline, silence)
        raw = self._origin.request(request.method, target, headers=headers, body=content, limit=limit)
        answer = Answer(raw.status, raw.headers, read_all(raw, limit))
        if 200 <= answer.status_code < 300:
            return cast("requests.Response", answer)
        said = self._config.without_secrets(answer.content.decode("utf-8", "replace"), self._secret)
        raise HTTPFailure.from_answer(answer.status_code, answer.headers, said.encode())


def _merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Headers under names in lower case; of those that are there several times the last."""
    return {name.lower(): value for part in parts for name, value in part.items()}


def _not_http(request: Request) -> InvalidArgumentException:
    return InvalidArgumentException(
        f"{request.operation}: a header or parameter holds characters that HTTP does not allow"
    )
