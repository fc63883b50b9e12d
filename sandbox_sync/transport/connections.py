"""How a server is reached: through a proxy or not, encrypted or not."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple, cast

from sandbox_sync.transport import forks
from sandbox_sync.transport.heads import AnswerError, request_head
from sandbox_sync.transport.http1 import NETWORK_ERRORS, Connection
from sandbox_sync.transport.proxies import authorization
from sandbox_sync.transport.sockets import DeadlineSocket, TimeLimit, dial
from sandbox_sync.transport.tls import ClientCert, ssl_context

if TYPE_CHECKING:
    import socket


class Proxy(NamedTuple):
    """A proxy.

    Attributes:
        url: Its URL, with the user if there is one.
        secure: Whether it is reached over TLS.
        host: Its name or address.
        port: Its port.
    """

    url: str
    secure: bool
    host: str
    port: int


class Route(NamedTuple):
    """What two calls have in common that can use the same connection.

    Attributes:
        secure: Whether the server is reached over TLS. If not, a proxy is told with each request where to.
        host: Name or address of the server; of the proxy, if that is told with each request.
        port: The port there.
        proxy: The proxy, if there is one.
        trusted: With TLS, the file of the authorities.
        client_cert: File or files of the client certificate.
    """

    secure: bool
    host: str
    port: int
    proxy: Proxy | None
    trusted: str | None
    client_cert: ClientCert


class NotConnectedError(OSError):
    """No connection came about.

    Attributes:
        cause: Why.
        at_proxy: Whether it is the proxy that could not be reached.
        refused: Whether the proxy was reached, and leads nowhere.
    """

    def __init__(self, cause: Exception, *, at_proxy: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.at_proxy = at_proxy
        self.refused = isinstance(cause, ProxyRefusedError)


class ProxyRefusedError(OSError):
    """The proxy answered, and leads nowhere."""


_contexts: dict[tuple[str, ClientCert], ssl.SSLContext] = {}
forks.in_child(_contexts.clear)


def connect(route: Route, limit: TimeLimit | None) -> Connection:
    """Open a connection.

    Args:
        route: Where to.
        limit: What bounds it, and what is done with the connection until it is bound otherwise.

    Raises:
        NotConnectedError: There is none.
        InvalidArgumentException: A certificate file cannot be used.
    """
    proxy = route.proxy
    context = None if route.trusted is None else _context(route.trusted, route.client_cert)
    sock: socket.socket | None = None
    at_proxy = proxy is not None
    try:
        first = route if proxy is None else proxy
        link = dial(first.host, first.port, limit)
        sock = link
        if context is not None and first.secure:
            sock = link = _encrypted(link, context, first.host, limit)
        if proxy is not None and route.secure:
            _ask_for_way(sock, route, proxy)
            at_proxy = False
            if context is not None and proxy.secure:
                sock = _encrypted_within(sock, context, route.host)
            elif context is not None:
                sock = link = _encrypted(link, context, route.host, limit)
        return Connection(sock, link)
    except NETWORK_ERRORS as error:
        if sock is not None:
            sock.close()
        raise NotConnectedError(error, at_proxy=at_proxy) from error
    except BaseException:
        if sock is not None:
            sock.close()
        raise


def _context(trusted: str, client_cert: ClientCert) -> ssl.SSLContext:
    key = (trusted, client_cert)
    return _contexts.get(key) or _contexts.setdefault(key, ssl_context(trusted, client_cert))


def _encrypted(
    sock: DeadlineSocket, context: ssl.SSLContext, name: str, limit: TimeLimit | None
) -> DeadlineSocket:
    sock.begin()  # the handshake keeps to the time that the socket has
    secure = cast("DeadlineSocket", context.wrap_socket(sock, server_hostname=name))
    secure.bound(limit)
    return secure


def _encrypted_within(sock: socket.socket, context: ssl.SSLContext, name: str) -> socket.socket:
    """Encryption within that which leads to a proxy."""
    from urllib3.util.ssltransport import SSLTransport

    return cast("socket.socket", SSLTransport(sock, context, name))


def _ask_for_way(sock: socket.socket, route: Route, proxy: Proxy) -> None:
    """Have a proxy connect what is sent from now on to the server.

    Raises:
        ProxyRefusedError: It does not do so.
        AnswerError: What it says is no answer.
    """
    authority = f"[{route.host}]:{route.port}" if ":" in route.host else f"{route.host}:{route.port}"
    fields = [("host", authority), *authorization(proxy.url).items()]
    sock.sendall(request_head("CONNECT", authority, fields))
    # It has no more to say before it is spoken to: this connection has nothing to do with the one to come.
    asked = Connection(sock, cast("DeadlineSocket", sock))
    head = asked.head("CONNECT")
    if not 200 <= head.status < 300:
        raise ProxyRefusedError(f"{head.status} {head.reason}")
    if asked.has_surplus:
        raise AnswerError("the proxy says more than it was asked")
