"""A preforking WSGI server of the standard library: the first process imports the app and forks the workers.

Each worker accepts on the socket that all have inherited, and serves one request at a time, which is how the
servers work that preload an app and have no machinery of their own around it.

usage: prefork.py DESCRIPTOR WORKERS, with the descriptor of a socket that listens
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import FrameType
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from web_app import application


class Inherited(WSGIServer):
    """Serves on a socket that somebody else has opened."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), WSGIRequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = "127.0.0.1", listener.getsockname()[1]
        self.setup_environ()
        self.set_app(application)


def work(listener: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        Inherited(listener).handle_request()


def stop(number: int, frame: FrameType | None) -> None:
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    raise SystemExit(0)


workers: list[int] = []
listener = socket.socket(fileno=int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        work(listener)
    workers.append(pid)
signal.signal(signal.SIGTERM, stop)
signal.pause()
