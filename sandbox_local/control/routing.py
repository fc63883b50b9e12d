"""From the method and path of a request to what answers it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote

from sandbox_local.control.errors import BadRequest
from sandbox_local.http import HttpError, Request, Response

Endpoint = Callable[[Request, dict[str, str]], Awaitable[Response]]


class Route(NamedTuple):
    """One operation of the contract: `path` is written as there, with its parameters in braces."""

    method: str
    path: str
    endpoint: Endpoint


class Router:
    """Finds the endpoint of a request.

    Args:
        routes: Those tried, in this order.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._paths: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}
        for route in routes:
            pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path))
            self._paths.setdefault(route.path, (pattern, {}))[1][route.method] = route.endpoint

    def find(self, request: Request) -> tuple[Endpoint, dict[str, str]]:
        """The endpoint, and the parameters in the path, decoded.

        Raises:
            HttpError: 404, there is no such path; 405, it has no such method.
        """
        allowed: set[str] = set()
        for pattern, endpoints in self._paths.values():
            match = pattern.fullmatch(request.raw_path)
            if match is None:
                continue
            if request.method in endpoints:
                return endpoints[request.method], {
                    name: _decode(text) for name, text in match.groupdict().items()
                }
            allowed.update(endpoints)
        if allowed:
            methods = ", ".join(sorted(allowed))
            raise HttpError(
                405, f"{request.method} is not allowed here; allowed: {methods}", headers={"allow": methods}
            )
        raise HttpError(404, f"no such path: {request.method} {request.path}")


def _decode(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("the path is not valid UTF-8") from None
