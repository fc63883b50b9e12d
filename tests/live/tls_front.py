"""Ends the encryption of connections and hands on what is in them, as a gateway before a server does."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAIT = 20.0


@contextmanager
def a_front(context: ssl.SSLContext, port: int) -> Iterator[int]:
    """Listen on a port of its own, which it yields, for what listens on `port` without encryption.

    Clients that want HTTP/2 get it, as far as the server has it.
    """
    context.set_alpn_protocols(["h2", "http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    sockets: set[socket.socket] = set()
    threads: list[threading.Thread] = []

    def serve(raw: socket.socket) -> None:
        with context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as outer:
            sockets.add(outer)
            try:
                outer.do_handshake()
                with socket.create_connection(("127.0.0.1", port)) as inner:
                    _relay(outer, inner)
            except ssl.SSLError:
                _linger(outer)  # so that the client gets to read why
            except OSError:
                pass  # one of them has gone; so does the other
            finally:
                sockets.discard(outer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True)
                threads.append(thread)
                thread.start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in (listener, *sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(WAIT)


def _relay(outer: ssl.SSLSocket, inner: socket.socket) -> None:
    """Until either of them ends."""
    while True:
        readable = [outer] if outer.pending() else select.select([outer, inner], [], [])[0]
        for source in readable:
            data = source.recv(65536)
            if not data:
                return
            (inner if source is outer else outer).sendall(data)


def _linger(sock: socket.socket) -> None:
    """End a connection without taking back what was sent last."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(1)
        while socket.socket.recv(sock, 65536):
            pass
