"""HTTP connections: kept open between calls, bound to a deadline, and never shared with a forked process."""

from __future__ import annotations

import http.client
import queue
import ssl
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import urllib3
from urllib3 import exceptions as urllib3_errors
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, parse_url

from sandbox_sync._version import __version__
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport import connections, forks
from sandbox_sync.transport.connections import NETWORK_ERRORS, ProxyRefusedError
from sandbox_sync.transport.failures import Failure, Reason
from sandbox_sync.transport.proxies import authorization, proxy_for
from sandbox_sync.transport.sockets import DeadlineSocket, TimeLimit
from sandbox_sync.transport.tls import ClientCert, ca_file, ssl_context

Body: TypeAlias = bytes | Iterable[bytes] | None

USER_AGENT = f"sandbox-sync/{__version__}"

BLOCK = 256 * 1024
"""Bytes moved at once: measured, less costs throughput and more gains nothing."""

MAX_MESSAGE = 128 * 1024 * 1024
"""The largest answer that is held in memory whole."""

_MAX_HOSTS = 256
_MAX_IDLE = 64
# Some proxies, proxy.py among them, add a second one to a length that is not written in this way.
_SPELLED = {"content-length": "Content-Length"}
# Alerts of a server that does not go on with the handshake, in OpenSSL's words.
_TLS_REFUSALS = (
    "ALERT_CERTIFICATE",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "ALERT_ACCESS_DENIED",
    "ALERT_HANDSHAKE_FAILURE",
)
# A timeout that fires so many seconds before the deadline is the deadline's.
_CLOCK_SLACK = 0.05


class _IdleConnections:
    """The idle connections to one host, the last one used on top.

    It stands in for the queue that urllib3 would use, and has no lock: a process may be forked at any moment,
    and a lock that another thread held then would never be released in the child.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._stack: deque[Any] = deque()

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        try:
            return self._stack.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, connection: Any, block: bool = False) -> None:
        if connection is None:
            return  # urllib3 fills its queue with these at the start
        now = time.monotonic()
        connection.idle_since = now
        self._stack.append(connection)
        try:
            while (
                len(self._stack) > _MAX_IDLE or self._stack[0].idle_since < now - connections.MAX_IDLE_SECONDS
            ):
                self._stack.popleft().close()
        except IndexError:
            pass  # other threads have taken them

    def qsize(self) -> int:
        return len(self._stack)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = connections.Connection
    QueueCls = _IdleConnections  # type: ignore[assignment]


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = connections.SecureConnection
    QueueCls = _IdleConnections  # type: ignore[assignment]


# Empty in a forked child, whose copies of the parent's connections `sockets` has closed.
_managers: dict[tuple[Any, ...], urllib3.PoolManager] = {}
forks.in_child(_managers.clear)


def _manager(proxy: str | None, trusted: str | None, client_cert: ClientCert) -> urllib3.PoolManager:
    """This process's pools for these settings. With TLS, `trusted` is the file of the authorities."""
    forks.check()
    key = (proxy, trusted, client_cert)
    manager = _managers.get(key)
    if manager is None:
        options: dict[str, Any] = {"num_pools": _MAX_HOSTS, "blocksize": BLOCK, "block": False}
        if trusted is not None:
            options["ssl_context"] = ssl_context(trusted, client_cert)
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            scheme, _, rest = proxy.partition("://")
            manager = urllib3.ProxyManager(
                f"{scheme}://{rest.rpartition('@')[2]}",
                proxy_headers=authorization(proxy),
                proxy_ssl_context=options.get("ssl_context"),
                **options,
            )
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        manager = _managers.setdefault(key, manager)
    return manager


class Origin:
    """One server, as the caller's settings say to reach it.

    Args:
        base_url: Its URL, with the prefix that all paths have, if any.
        config: The settings.

    Raises:
        InvalidArgumentException: The URL cannot be one, or the proxy is of a kind that is not supported.
    """

    def __init__(self, base_url: str, config: ConnectionConfig) -> None:
        try:
            url = parse_url(base_url)
        except urllib3_errors.LocationParseError:
            raise InvalidArgumentException(f"not the URL of a server: {base_url!r}") from None
        self.base_url = base_url
        self._scheme = url.scheme or "http"
        self._host = url.host
        self._port = url.port
        self.prefix = (url.path or "").rstrip("/")
        self._proxy = proxy_for(base_url, config.proxy)
        secure = self._scheme == "https" or (self._proxy or "").startswith("https:")
        trusted = ca_file(config.ca_bundle) if secure else None
        self._settings = (self._proxy, trusted, config.client_cert)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Body = None,
        limit: TimeLimit | None,
    ) -> BaseHTTPResponse:
        """Send a request and wait for the head of its answer.

        Args:
            method: HTTP method.
            target: Path and query, percent-encoded, without the prefix of the base URL.
            headers: All headers; a body of unknown length is sent in chunks if they do not tell its length.
            body: What to send; parts of an iterable are sent as they come.
            limit: How long all of it may take, until other limits are set on the answer's connection.

        Returns:
            The answer. Reading it raises `NETWORK_ERRORS`, save with `read_all`; it has to be closed.

        Raises:
            Failure: There is no answer. Errors of an iterable `body` are raised as they are.
            InvalidArgumentException: HTTP allows no such header or target.
        """
        if limit is not None and limit.deadline.expired:
            raise Failure("the time was up before it was sent", reason="deadline", sent=False)
        source = _Source(body) if body is not None and not isinstance(body, bytes) else None
        options: dict[str, Any] = {
            "headers": {
                "user-agent": USER_AGENT,
                **{_SPELLED.get(name, name): headers[name] for name in headers},
            },
            "body": body if source is None else source,
            "timeout": Timeout(connect=limit, read=limit),
            "retries": False,
            "redirect": False,
            "preload_content": False,
        }
        target = self.prefix + target
        manager = _manager(*self._settings)
        try:
            if self._proxy is not None and self._scheme == "http":
                url = f"{self._scheme}://{self._authority()}{target}"
                return _not_of_proxy(manager.urlopen(method, url, **options))
            pool = manager.connection_from_host(self._host, self._port, self._scheme)
            return pool.urlopen(method, target, assert_same_host=False, **options)
        except NETWORK_ERRORS as error:
            if source is not None and source.error is not None:
                raise source.error from None
            raise failure_of(error, limit) from None
        except ValueError:
            if source is not None and source.error is not None:
                raise
            # The error's own words quote the header, which may be a secret.
            raise InvalidArgumentException(
                "a header or the path holds characters that HTTP does not allow"
            ) from None

    def _authority(self) -> str:
        return f"{self._host}:{self._port}" if self._port else f"{self._host}"


class _Source:
    """A body made of parts, which remembers the error of whoever makes them."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._parts
        except Exception as error:
            self.error = error
            raise


def _not_of_proxy(response: BaseHTTPResponse) -> BaseHTTPResponse:
    """An answer, unless it is a proxy's own that it does not know the caller.

    Raises:
        Failure: It is.
    """
    if response.status != 407:
        return response
    response.close()
    raise Failure(f"the proxy refused: {response.status} {response.reason}", reason="connect", sent=False)


def link_of(response: BaseHTTPResponse) -> DeadlineSocket | None:
    """The socket that an answer is being read from, to change its limits or to interrupt it."""
    return getattr(response.connection, "link", None)


def read_all(response: BaseHTTPResponse, limit: TimeLimit | None) -> bytes:
    """The rest of an answer; its connection is free for other calls afterwards.

    Raises:
        Failure: It did not come whole, or it is larger than `MAX_MESSAGE`.
    """
    require_length(response)
    parts = []
    size = 0
    try:
        for part in response.stream(BLOCK, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > MAX_MESSAGE:
                response.close()
                raise Failure(f"the answer is larger than {MAX_MESSAGE} bytes", reason="answer")
    except NETWORK_ERRORS as error:
        raise failure_of(error, limit) from None
    response.release_conn()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def require_length(response: BaseHTTPResponse) -> None:
    """Make sure that a good answer says where it ends, so that a broken connection is not taken for its end.

    Raises:
        Failure: It does not.
    """
    framed = "content-length" in response.headers or getattr(response, "chunked", False)
    if 200 <= response.status < 300 and response.status != 204 and not framed:
        response.close()
        raise Failure(
            "the answer does not say how long it is, so it may have been cut short", reason="broken"
        )


def failure_of(error: Exception, limit: TimeLimit | None) -> Failure:
    """What one of `NETWORK_ERRORS` means.

    Args:
        error: The error.
        limit: The limit that was set when it happened.
    """
    words = ""
    if isinstance(error, urllib3_errors.ProxyError):
        error = error.original_error
        answered = isinstance(_root_of(error), ProxyRefusedError)
        words = "the proxy refused: " if answered else "the proxy cannot be reached: "
    root = _root_of(error)
    # In TLS 1.3 the server looks at the client's certificate when the client already sends its request.
    refused = isinstance(root, ssl.SSLError) and any(word in (root.reason or "") for word in _TLS_REFUSALS)
    sent = not (refused or isinstance(error, urllib3_errors.NewConnectionError))
    reason: Reason = "broken" if sent else "connect"
    if isinstance(root, TimeoutError) and limit is not None:
        left = limit.deadline.remaining()
        reason = "deadline" if left is not None and left <= _CLOCK_SLACK else "silence"
    elif isinstance(root, ssl.SSLError) and not sent:
        reason = "tls"
        words += "the server wants another client certificate (client_cert): " if refused else ""
    failure = Failure(words + (str(root) or type(root).__name__), reason=reason, sent=sent)
    unreadable = isinstance(root, http.client.BadStatusLine)
    failure.is_of_something_else = unreadable and not isinstance(root, http.client.RemoteDisconnected)
    return failure


def _root_of(error: BaseException) -> BaseException:
    """What urllib3 has wrapped: its own errors tell of objects rather than of what happened."""
    wrapped: object = None
    if isinstance(error, (urllib3_errors.NewConnectionError, urllib3_errors.TimeoutError)):
        wrapped = error.__cause__
    elif isinstance(error, urllib3_errors.SSLError) and error.args:
        wrapped = error.args[0]
    elif isinstance(error, urllib3_errors.ProtocolError) and len(error.args) > 1:
        wrapped = error.args[1]
    return _root_of(wrapped) if isinstance(wrapped, BaseException) else error
