"""The process inside a box that does its file operations.

The agent forks it and lends it a socket; from there on it is single-threaded, imports nothing and runs as
the box's root in the box's root directory, under the filter and with the rights of a command. It trusts
nothing in the box, but is worth nothing either: whoever takes it over has gained what root in the box has
already.

Operations that may take long run in a forked child each, so that a removal of a million files does not delay
the read of one. A child hands its reply to the worker over a socket of its own, since frames of several
writers would mix on one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from sandbox_local.isolation import wire
from sandbox_local.isolation.errors import describe
from sandbox_local.isolation.files.operations import LONG, QUICK, SMALL, Answer

_MAX_CHILDREN = 16


def serve(sock: socket.socket) -> None:
    """Do what the requests on a blocking socket ask for, until it is closed.

    Args:
        sock: Carries frames of `isolation.wire`.
    """
    os.umask(0o022)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave nothing to wait for
    try:
        _Worker(sock).run()
    except (EOFError, OSError, wire.WireError):
        pass  # the server has gone; what still runs dies with the box


class _Child(NamedTuple):
    """A long operation under way."""

    sock: socket.socket
    frames: wire.Decoder
    request_id: Any


class _Worker:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._children: dict[int, _Child] = {}  # by the descriptors of their sockets
        self._queue: deque[wire.Message] = deque()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def run(self) -> NoReturn:
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._children:
                    self._take_reply(fd)
                else:
                    self._take_request()

    def _take_request(self) -> None:
        request, fds = wire.recv(self._sock)
        for fd in fds:
            os.close(fd)
        reply = _perform_at_once(request, busy=bool(self._children))
        if reply is not None:
            self._reply(*reply)
        else:
            self._queue.append(request)
            self._start_queued()

    def _reply(self, reply: wire.Message, fds: Sequence[int] = ()) -> None:
        try:
            wire.send(self._sock, reply, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _start_queued(self) -> None:
        while self._queue and len(self._children) < _MAX_CHILDREN:
            request = self._queue.popleft()
            try:
                sock = self._fork(request)
            except OSError as error:  # the box has no process left to give
                self._reply({"id": request.get("id"), "error": describe(error)})
                continue
            self._children[sock.fileno()] = _Child(sock, wire.Decoder(), request.get("id"))
            self._poll.register(sock, select.POLLIN)

    def _fork(self, request: wire.Message) -> socket.socket:
        """Start a child that performs a request; returns the socket that its reply comes on."""
        ours, theirs = socket.socketpair()
        try:
            if os.fork() == 0:
                try:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    self._sock.close()
                    wire.send(theirs, *_perform(request))
                finally:
                    os._exit(0)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _take_reply(self, fd: int) -> None:
        child = self._children[fd]
        try:
            frame = child.frames.read(child.sock)
            if frame is None:
                return
        except wire.DescriptorsLost as error:
            frame = {"id": child.request_id, "error": describe(error)}, []
        except (EOFError, OSError, wire.WireError):
            message = "the operation was killed, perhaps for want of memory"
            frame = {"id": child.request_id, "error": {"kind": "internal", "message": message}}, []
        del self._children[fd]
        self._poll.unregister(fd)
        child.sock.close()
        self._reply(*frame)
        self._start_queued()


def _perform(request: wire.Message) -> Answer:
    """The reply to a request."""
    try:
        operation = QUICK.get(request["op"]) or LONG[request["op"]]
        answer, fds = operation(**request["args"])
    except Exception as error:  # noqa: BLE001  whatever it is, the server is told and the worker lives on
        return {"id": request.get("id"), "error": describe(error)}, []
    return {"id": request.get("id"), "ok": answer}, fds


def _perform_at_once(request: wire.Message, *, busy: bool) -> Answer | None:
    """The same, unless it takes long, or may and others do already."""
    operation = request.get("op")
    if operation not in LONG:
        return _perform(request)
    if busy or operation not in SMALL:
        return None
    try:
        done = SMALL[operation](**request["args"])
    except Exception:  # noqa: BLE001  it comes again, and is told then
        return None
    return None if done is None else ({"id": request.get("id"), "ok": done[0]}, done[1])
