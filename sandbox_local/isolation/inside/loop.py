"""What every process that serves over one blocking socket in a box has in common: its loop."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from sandbox_local.isolation import wire
from sandbox_local.isolation.errors import describe
from sandbox_local.isolation.inside.stdio import close_all

_PURSUIT = 0.01
"""Seconds between looks at what is being killed: not every death wakes this process."""

Answer = tuple[wire.Message, list[int]]
Operation = Callable[..., "Answer | None"]


class Loop:
    """Serves requests, and attends to the children of its process; it trusts whoever asks."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._operations: dict[str, Operation] = {}

    def run(self) -> NoReturn:
        """Serve until the other side goes away."""
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._wake(woken))
        self._selector.register(self._control, selectors.EVENT_READ, self._take_request)
        self._begin()
        pursuing = False
        while True:
            for key, _ in self._selector.select(_PURSUIT if pursuing else None):
                if self._selector.get_map().get(key.fd) is key:  # not done away with by an earlier event
                    key.data()
            pursuing = self._pursue()

    def _begin(self) -> None:
        """Called once everything is registered."""
        self._send({"event": "ready"})

    def _reap(self) -> None:
        """Called when children may have ended."""

    def _pursue(self) -> bool:
        """Go on with what no event tells of; True to be called again soon."""
        return False

    def _wake(self, woken: socket.socket) -> None:
        woken.recv(4096)
        self._reap()

    def _take_request(self) -> None:
        try:
            request, fds = wire.recv(self._control)
        except (EOFError, OSError, wire.WireError):
            os._exit(0)
        number = request["id"]
        try:
            answer = self._perform(request, fds)
        except Exception as error:  # noqa: BLE001  whatever it is, the server is told and the box lives on
            self._refuse(number, error)
        else:
            if answer is not None:
                self._reply(number, *answer)

    def _perform(self, request: wire.Message, fds: list[int]) -> Answer | None:
        close_all(fds)
        return self._operations[request["op"]](request["id"], **request["args"])

    def _refuse(self, number: int, error: Exception) -> None:
        self._send({"id": number, "error": describe(error)})

    def _reply(self, number: int, answer: wire.Message, fds: list[int]) -> None:
        try:
            self._send({"id": number, "ok": answer}, fds)
        finally:
            close_all(fds)

    def _send(self, message: wire.Message, fds: list[int] | None = None) -> None:
        try:
            wire.send(self._control, message, fds or ())
        except OSError:
            os._exit(0)


def exit_event(number: int, status: int) -> wire.Message:
    """What the server is told of a command's end.

    Args:
        number: The command's.
        status: The wait status of its first process.
    """
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    event = {"event": "exit", "command": number, "code": code, "signal": signum}
    return {**event, "core": os.WCOREDUMP(status)}
