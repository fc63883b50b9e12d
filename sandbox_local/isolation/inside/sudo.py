"""sudo for boxes in which the host's own can't work: it is put there, and answered by the agent."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable

from sandbox_local.isolation import tree, users, wire
from sandbox_local.isolation.errors import UnknownUser, describe
from sandbox_local.isolation.ids import Ids
from sandbox_local.isolation.inside.children import Starter
from sandbox_local.isolation.inside.spawn import Program
from sandbox_local.isolation.inside.stdio import close_all
from sandbox_local.isolation.inside.tags import Tag

_SOCKET = "/run/sandbox/sudo.sock"
_HOME = "lib/sandbox"
"""Where the shim lies below its prefix, laid out like the package that it is part of."""

_FINDER = """#!/bin/bash
for python in /usr/bin/python3 /usr/local/bin/python3 /bin/python3; do
  [ -x "$python" ] && exec "$python" -ISE %s "$@"
done
echo "sudo: this template has none that works here, and no Python for ours; run commands as root instead" >&2
exit 1
"""

_MODULES = ("wire.py", "inside/sudo_shim.py")
_TERMINAL_SIGNALS = {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGSTOP, signal.SIGCONT}
_MOST_CLIENTS = 64
_MAX_REQUEST = 4 << 20
_PEER = struct.Struct("3i")


def install(directory: str, prefix: str, python: str | None, ids: Ids) -> None:
    """Put sudo into what boxes are made of.

    Args:
        directory: Where.
        prefix: What that is in a box.
        python: The path of Python in the boxes, or None if each has to look for its own.
        ids: Whose it is.
    """
    home = f"{directory}/{_HOME}/sandbox_local"
    for name in _MODULES:
        with open(f"{os.path.dirname(__file__)}/../{name}", "rb") as file:
            tree.write(f"{home}/isolation/{name}", file.read(), ids)
    start = f"""import sys
sys.path.append("{prefix}/{_HOME}")
try:
    from sandbox_local.isolation.inside import sudo_shim
except ImportError as error:
    sys.exit(f"sudo: {{error}}; it needs Python's whole standard library: run commands as root instead")
sys.exit(sudo_shim.main("{_SOCKET}", sys.argv[1:]))
"""
    if python:
        start = f"#!{python} -ISE\n{start}"
    else:
        tree.write(f"{directory}/{_HOME}/sudo.py", start.encode(), ids)
        start = _FINDER % f"{prefix}/{_HOME}/sudo.py"
    tree.write(f"{directory}/bin/sudo", start.encode(), ids, mode=0o755)


class SudoService:
    """Starts commands for the shim, each as part of the command that asked."""

    def __init__(
        self, selector: selectors.BaseSelector, children: Starter, tag_of: Callable[[int], Tag]
    ) -> None:
        self._selector = selector
        self._children = children
        self._tag_of = tag_of
        self._clients = 0
        self._listener = socket.socket(socket.AF_UNIX)
        os.mkdir(os.path.dirname(_SOCKET))
        self._listener.bind(_SOCKET)
        os.chmod(_SOCKET, 0o666)
        self._listener.listen(_MOST_CLIENTS)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            sock = self._listener.accept()[0]
        except OSError:
            return
        sock.setblocking(False)
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if self._clients < _MOST_CLIENTS and _may(uid):
            self._clients += 1
            _Client(sock, pid, self._selector, self._children, self._tag_of, self._gone)
        else:
            sock.close()

    def _gone(self) -> None:
        self._clients -= 1


class _Client:
    """One shim, from its request to the end of its command."""

    def __init__(
        self,
        sock: socket.socket,
        peer: int,
        selector: selectors.BaseSelector,
        children: Starter,
        tag_of: Callable[[int], Tag],
        gone: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._peer = peer
        self._selector = selector
        self._children = children
        self._tag_of = tag_of
        self._gone = gone
        self._decoder = wire.Decoder(_MAX_REQUEST)
        self._asked = False
        self._pid = 0  # while the command runs
        selector.register(sock, selectors.EVENT_READ, self._read)

    def _read(self) -> None:
        try:
            frame = self._decoder.read(self._sock)
            if frame:
                self._take(*frame)
        except BlockingIOError:
            pass
        except (EOFError, OSError, wire.WireError):
            self._end()

    def _take(self, message: wire.Message, fds: list[int]) -> None:
        try:
            if message.get("op") == "signal":
                self._signal(message["args"]["signum"])
            elif not self._asked:
                self._run(fds, **message["args"])
        except Exception as error:  # noqa: BLE001  it may be anything that a hostile client sends
            self._send({"error": describe(error)})
        finally:
            close_all(fds)

    def _run(
        self,
        fds: list[int],
        *,
        argv: list[str],
        env: dict[str, str],
        user: str,
        gid: int | None,
        terminal: bool,
    ) -> None:
        who = users.find(user)
        if gid is not None:
            who = who._replace(gid=gid)
        *stdio, cwd = fds
        if len(stdio) != 3:
            raise ValueError("standard input, output and error are wanted, and no more")
        # The command is part of the one that asked: whatever ends that ends this.
        tag = self._tag_of(self._peer)
        try:
            program = Program(argv, env, who, cwd, stdio, tag, terminal)
            self._children.start(program, self._started, self._ended)
            self._asked = True
        finally:
            tag.close()

    def _started(self, pid: int, error: Exception | None) -> None:
        self._pid = pid
        self._send({"ok": {}} if error is None else {"error": describe(error)})
        if self._sock.fileno() < 0:
            self._hang_up()  # who asked went away while it was being started

    def _ended(self, status: int) -> None:
        self._pid, self._asked = 0, False
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        self._send({"event": "exit", "code": code, "signal": os.WTERMSIG(status)})

    def _signal(self, number: int) -> None:
        if self._pid:
            send = os.killpg if number in _TERMINAL_SIGNALS else os.kill
            send(self._pid, number)

    def _send(self, message: wire.Message) -> None:
        try:
            wire.send(self._sock, message)
        except OSError:
            pass  # it has gone, or does not read; the socket will tell which

    def _end(self) -> None:
        self._selector.unregister(self._sock)
        self._sock.close()
        self._decoder.close()
        self._gone()
        self._hang_up()

    def _hang_up(self) -> None:
        try:
            self._signal(signal.SIGHUP)
        except ProcessLookupError:
            pass


def _may(uid: int) -> bool:
    """Whether a user may use sudo: root, and "user"."""
    try:
        return uid in (0, users.find("user").uid)
    except UnknownUser:
        return False
