"""Connections whose sockets keep to deadlines, in the form that urllib3 uses them."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from typing import Any, cast

from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection

from sandbox_sync.transport.sockets import DeadlineSocket, dial

NETWORK_ERRORS = (urllib3_errors.HTTPError, http.client.HTTPException, OSError)
"""What urllib3 raises; `pools.failure_of` tells what it means."""

MAX_IDLE_SECONDS = 55.0
"""Seconds after which an idle connection is not used again: less than what load balancers keep them for."""


class _WholeHead(http.client.HTTPResponse):
    """An answer whose head has to be there to its end: http.client takes a broken one for a short one."""

    def begin(self) -> None:
        reader: Any = self.fp
        head: Any = _Lines(reader)
        self.fp = head
        try:
            super().begin()
        finally:
            if self.fp is head:
                self.fp = reader
        if not head.last:
            raise http.client.RemoteDisconnected("the connection ended within the head of the answer")


class _Lines:
    """Reads lines, and knows the last one. Everything else is left to the file beneath."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Connection(HTTPConnection):
    """A connection whose socket keeps to deadlines.

    Attributes:
        link: The socket, also after http.client has let go of it to read an answer to its end.
        idle_since: Reading of the monotonic clock when its last call ended.
    """

    response_class = _WholeHead
    link: DeadlineSocket | None = None
    idle_since = 0.0

    def connect(self) -> None:
        try:
            if self.proxy is None:
                self.sock = self.open()
            else:
                super().connect()
                self._adopt()
        except NETWORK_ERRORS as error:
            raise urllib3_errors.NewConnectionError(self, str(error)) from error
        if isinstance(self.sock, DeadlineSocket):  # not if a proxy, too, is reached over TLS
            self.link = self.sock
            self.link.own()

    def open(self) -> socket.socket:
        return dial(self.host, self.port, self.timeout)

    def _adopt(self) -> None:
        """Put a socket of ours in the place of the one that led to the proxy."""
        if isinstance(self.sock, socket.socket) and not isinstance(self.sock, DeadlineSocket):
            self.sock = DeadlineSocket(fileno=self.sock.detach())
        self.sock.settimeout(self.timeout)

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self.idle_since < MAX_IDLE_SECONDS and super().is_connected


class SecureConnection(Connection, HTTPSConnection):
    """The same over TLS."""

    def open(self) -> socket.socket:
        plain = super().open()
        try:
            secure = cast("ssl.SSLContext", self.ssl_context).wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        self.is_verified = True  # the context checks the certificate and the name in it
        return secure
