"""Servers, and the connections to them: kept open between calls and never shared with a forked process."""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable, Mapping

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from sandbox_sync._version import __version__
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport import forks
from sandbox_sync.transport.answers import failure_of
from sandbox_sync.transport.connections import Proxy, Route, connect
from sandbox_sync.transport.failures import Failure
from sandbox_sync.transport.heads import request_head
from sandbox_sync.transport.http1 import NETWORK_ERRORS, Answer, Body, Connection
from sandbox_sync.transport.proxies import authorization, proxy_for
from sandbox_sync.transport.sockets import TimeLimit
from sandbox_sync.transport.sources import Source
from sandbox_sync.transport.tls import ca_file

USER_AGENT = f"sandbox-sync/{__version__}"

MAX_IDLE_SECONDS = 55.0
"""Seconds after which an idle connection is not used again: less than what load balancers keep them for."""

_MAX_IDLE = 64  # connections of one route
_MAX_ROUTES = 256
_PORTS = {"http": 80, "https": 443}
# Methods of which nobody expects a body: a request of any other says that it has none.
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})


class _Idle:
    """The idle connections of one route, the last one used on top.

    It has no lock: a process may be forked at any moment, and a lock that another thread held then would
    never be released in the child.
    """

    def __init__(self) -> None:
        self._stack: deque[Connection] = deque()
        self.used = time.monotonic()

    def take(self) -> Connection | None:
        """One that can be used."""
        while self._stack:
            try:
                connection = self._stack.pop()
            except IndexError:
                break  # other threads have taken the last one
            if time.monotonic() - connection.idle_since < MAX_IDLE_SECONDS and connection.is_open():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """Keep one, and none that is too old or too many."""
        self.used = connection.idle_since
        self._stack.append(connection)
        oldest = self.used - MAX_IDLE_SECONDS
        try:
            while len(self._stack) > _MAX_IDLE or self._stack[0].idle_since < oldest:
                self._stack.popleft().close()
        except IndexError:
            pass  # other threads have taken them

    def close(self) -> None:
        """Close all that there are now."""
        while self._stack:
            try:
                self._stack.pop().close()
            except IndexError:
                break


# Empty in a forked child, whose copies of the parent's connections `sockets` has closed.
_idle: dict[Route, _Idle] = {}
forks.in_child(_idle.clear)


@atexit.register
def _close_idle() -> None:
    for idle in _idle.copy().values():
        idle.close()


def _idle_of(route: Route) -> _Idle:
    idle = _idle.get(route)
    if idle is None:
        while len(_idle) >= _MAX_ROUTES:
            # A copy, in the making of which no other thread runs; a list of pairs may have garbage collected.
            routes = _idle.copy()
            unused = _idle.pop(min(routes, key=lambda route: routes[route].used), None)
            if unused is not None:
                unused.close()
        idle = _idle.setdefault(route, _Idle())
    return idle


class Origin:
    """One server, as the caller's settings say to reach it.

    Args:
        base_url: Its URL, with the prefix that all paths have, if any.
        config: The settings.

    Attributes:
        prefix: The prefix.

    Raises:
        InvalidArgumentException: The URL cannot be one, or the proxy is of a kind that is not supported.
    """

    def __init__(self, base_url: str, config: ConnectionConfig) -> None:
        try:
            url = parse_url(base_url)
            scheme = url.scheme or "http"
            usual_port = _PORTS[scheme]
        except (LocationParseError, KeyError):
            raise InvalidArgumentException(f"not the URL of a server: {base_url!r}") from None
        host = (url.host or "").rstrip(".")
        authority = host if url.port in (None, usual_port) else f"{host}:{url.port}"
        self.prefix = (url.path or "").rstrip("/")
        proxy = _proxy(proxy_for(base_url, config.proxy))
        secure = scheme == "https"
        trusted = ca_file(config.ca_bundle) if secure or (proxy is not None and proxy.secure) else None
        self._fields = [("host", authority)]
        self._before_path = self.prefix
        # Without encryption it is with each request that a proxy is told where to go.
        self._asks_proxy = proxy is not None and not secure
        if proxy is not None and self._asks_proxy:
            self._fields += authorization(proxy.url).items()
            self._before_path = f"http://{authority}{self.prefix}"
            host, port = proxy.host, proxy.port
        else:
            port = url.port or usual_port
        self._route = Route(secure, host.strip("[]"), port, proxy, trusted, config.client_cert)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Body = None,
        limit: TimeLimit | None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Answer:
        """Send a request and wait for the head of its answer.

        Args:
            method: HTTP method.
            target: Path and query, percent-encoded, without the prefix of the base URL.
            headers: All headers; a body of unknown length is sent in chunks if they do not tell its length.
            body: What to send; parts of an iterable are sent as they come.
            limit: How long all of it may take, until other limits are set on the answer.
            meanwhile: Is called when the request has been sent, before the answer is waited for.

        Returns:
            The answer. Reading it raises `NETWORK_ERRORS`, save with `answers.read_all`; it has to be closed.

        Raises:
            Failure: There is no answer. Errors of an iterable `body` are raised as they are.
            InvalidArgumentException: HTTP allows no such header or target.
        """
        if limit is not None and limit.deadline.expired:
            raise Failure("the time was up before it was sent", reason="deadline", sent=False)
        fields, chunked = self._all_fields(method, headers, body)
        try:
            head = request_head(method, self._before_path + target, fields)
        except ValueError:
            # The error's own words are no help: they must not quote a header, which may be a secret.
            raise InvalidArgumentException(
                "a header or the path holds characters that HTTP does not allow"
            ) from None
        source = None
        if body is not None and not isinstance(body, bytes):
            source = body if isinstance(body, Source) else Source(body)
        forks.check()
        try:
            connection = _idle_of(self._route).take()
            if connection is None:
                connection = connect(self._route, limit)
            else:
                connection.bound(limit)
            try:
                connection.send(head, body if source is None else source, chunked=chunked)
                if meanwhile is not None:
                    meanwhile()
                answer = connection.answer(method, self._free)
            except BaseException:
                connection.close()
                raise
        except NETWORK_ERRORS as error:
            if source is not None and source.error is not None:
                raise source.error from None
            raise failure_of(error, limit) from None
        if answer.status == 407 and self._asks_proxy:
            answer.close()
            words = f"the proxy refused: {answer.status} {answer.reason}"
            raise Failure(words, reason="connect", sent=False)
        return answer

    def _all_fields(
        self, method: str, headers: Mapping[str, str], body: Body
    ) -> tuple[list[tuple[str, str]], bool]:
        """The headers of a request, and whether they say that its body is sent in chunks."""
        given = {name.lower() for name in headers}
        fields = self._fields.copy()
        if "user-agent" not in given:
            fields.append(("user-agent", USER_AGENT))
        if "accept-encoding" not in given:
            fields.append(("accept-encoding", "identity"))
        chunked = False
        if "content-length" not in given:
            if body is None or isinstance(body, bytes):
                if body is not None or method not in _BODILESS:
                    fields.append(("Content-Length", str(len(body or b""))))
            else:
                chunked = True
                fields.append(("transfer-encoding", "chunked"))
        for name, value in headers.items():
            # Some proxies, proxy.py among them, add a second length to one that is not written in this way.
            fields.append(("Content-Length" if name == "content-length" else name, value))
        return fields, chunked

    def _free(self, connection: Connection) -> None:
        _idle_of(self._route).put(connection)


def _proxy(url: str | None) -> Proxy | None:
    if url is None:
        return None
    parts = parse_url(url)
    secure = parts.scheme == "https"
    return Proxy(url, secure, (parts.host or "").strip("[]"), parts.port or (443 if secure else 80))
