"""Telling what happens in a directory, and below it, as lines of JSON.

Names are relative to the directory, "." is itself. What happens to a directory below it is told by the one
above.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import select
import socket
from collections.abc import Iterator
from typing import Any

from sandbox_local.isolation.files import inotify
from sandbox_local.isolation.files.entry import Names, entry, text
from sandbox_local.isolation.files.inotify import Event, Inotify
from sandbox_local.isolation.users import User

_TOLD = (
    inotify.CREATE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.MOVE_SELF
    | inotify.ATTRIB
    | inotify.MODIFY
    | inotify.DELETE
    | inotify.DELETE_SELF
)
_KINDS = (  # in the order in which they are told when one event is several
    ("create", inotify.CREATE | inotify.MOVED_TO),
    ("rename", inotify.MOVED_FROM | inotify.MOVE_SELF),
    ("chmod", inotify.ATTRIB),
    ("write", inotify.MODIFY),
    ("remove", inotify.DELETE | inotify.DELETE_SELF),
)
_WITH_ENTRY = frozenset({"create", "chmod", "write"})

_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_MAX_WAITING = 16 << 20  # bytes of events that wait for the server to read them


class Watcher:
    """Watches one directory."""

    def __init__(self, root: bytes, viewer: User, recursive: bool, include_entry: bool) -> None:
        """Begin to watch.

        Args:
            root: An absolute path.
            viewer: As whom to name owners.
            recursive: Whether to watch the directories below it, present and to come.
            include_entry: Whether to describe the files of events, where that makes sense and they are still
            there.

        Raises:
            OSError: It can't be watched.
        """
        self._root = root
        self._viewer = viewer
        self._recursive = recursive
        self._include_entry = include_entry
        self._inotify = Inotify()
        self._directories: dict[int, bytes] = {}  # relative paths by watch, of the root the empty one
        self._announced: set[bytes] = set()  # told as found before the kernel told of them
        try:
            self._directories[self._inotify.add(root, _TOLD, follow=True)] = b""
            if recursive:
                self._add(b"")
        except BaseException:
            self._inotify.close()
            raise

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    def run(self, sock: socket.socket) -> None:
        """Send all that happens, a JSON object a line, until the other end of the socket is closed.

        A byte from there is answered by `{"synced": true}` when all is told that happened before. The last
        line may be `{"error": ...}`: what comes after can't be told.
        """
        sock.setblocking(False)
        poll = select.poll()
        poll.register(self._inotify.fd, select.POLLIN)
        poll.register(sock, select.POLLIN)
        waiting = bytearray()
        unsynced = 0
        while True:
            # Nothing happened that is not told, if nothing is there to be read after the byte has come.
            ready = dict(poll.poll(0 if unsynced else None))
            if self._inotify.fd in ready:
                try:
                    self._take(waiting)
                except OSError as error:
                    poll.unregister(self._inotify.fd)
                    waiting += _line({"error": error.strerror or str(error)})
            elif unsynced:
                waiting += _line({"synced": True}) * unsynced
                unsynced = 0
            try:
                if sock.fileno() in ready:
                    unsynced += self._hear(sock)
                if waiting:
                    del waiting[: sock.send(waiting)]
            except BlockingIOError:
                pass
            except (EOFError, OSError):
                return
            poll.modify(sock, select.POLLIN | select.POLLOUT if waiting else select.POLLIN)

    def _hear(self, sock: socket.socket) -> int:
        """How many bytes came; none, if there was only room to write."""
        try:
            heard = len(sock.recv(4096))
        except BlockingIOError:
            return 0
        if not heard:
            raise EOFError
        return heard

    def _take(self, waiting: bytearray) -> None:
        names = Names(self._viewer)
        for event in self._inotify.read():
            for name, kind in self._tell(event):
                told: dict[str, Any] = {"name": text(name), "type": kind}
                if self._include_entry and kind in _WITH_ENTRY:
                    path = self._root if name == b"." else posixpath.join(self._root, name)
                    try:
                        told["entry"] = entry(path, names)
                    except OSError:
                        pass
                waiting += _line(told)
                if len(waiting) > _MAX_WAITING:
                    raise OSError(
                        errno.EOVERFLOW, "events were lost: they are not read as fast as they happen"
                    )

    def _tell(self, event: Event) -> Iterator[tuple[bytes, str]]:
        """What an event is to the client; keeps track of the directories."""
        if event.mask & inotify.Q_OVERFLOW:
            raise OSError(errno.EOVERFLOW, "events were lost: too many happened at once")
        if event.mask & inotify.IGNORED:
            self._directories.pop(event.watch, None)
            return
        directory = self._directories.get(event.watch)
        if directory is None or (directory and not event.name):
            return
        name = posixpath.join(directory, event.name) if event.name else b"."
        if name in self._announced:
            self._announced.discard(name)
            if event.mask & inotify.CREATE:
                return
        for kind, mask in _KINDS:
            if event.mask & mask:
                yield name, kind
        if event.mask & inotify.ISDIR and self._recursive and event.name:
            if event.mask & inotify.MOVED_FROM:
                self._forget(name)
            if event.mask & (inotify.CREATE | inotify.MOVED_TO):
                for found in self._add(name):
                    if event.mask & inotify.CREATE:
                        self._announced.add(found)
                        yield found, "create"

    def _add(self, top: bytes) -> list[bytes]:
        """Watch a directory and all below it; returns what was found there, which may have been made
        meanwhile."""
        found: list[bytes] = []
        pending = [top]
        while pending:
            directory = pending.pop()
            path = posixpath.join(self._root, directory)
            try:
                self._directories[self._inotify.add(path, _TOLD, follow=not directory)] = directory
                with os.scandir(path) as scan:
                    for item in scan:
                        found.append(posixpath.join(directory, item.name))
                        if item.is_dir(follow_symlinks=False):
                            pending.append(found[-1])
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise
        return found

    def _forget(self, top: bytes) -> None:
        """Stop watching a directory that has gone elsewhere, and all below it."""
        for watch, directory in list(self._directories.items()):
            if directory == top or directory.startswith(top + b"/"):
                del self._directories[watch]
                self._inotify.remove(watch)
        self._announced = {name for name in self._announced if not name.startswith(top + b"/")}


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
