"""The users and groups of a box, as its own files tell them.

Parsed here and not asked of libc, whose name service would load libraries out of the box.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

_MAX_BYTES = 1 << 20  # of an account file that is read
_NO_ID = (1 << 32) - 1  # the kernel's "no user": chown takes it for "leave as it is"


class NoSuchUser(Exception):
    """The box has no user of that name."""


class User(NamedTuple):
    """What decides where a user's paths begin and whose the files are that are made for it."""

    uid: int
    gid: int
    home: bytes


class Accounts:
    """Looks names and numbers up; reads the files anew when they have changed."""

    def __init__(self, passwd: str = "/etc/passwd", group: str = "/etc/group") -> None:
        self._users = _Table(passwd, 6)
        self._groups = _Table(group, 3)

    def user(self, name: str) -> User:
        """The user of that name.

        Raises:
            NoSuchUser: There is none.
        """
        for row in self._users.rows():
            if row[0] == name.encode("utf-8", "surrogateescape"):
                uid, gid = _number(row[2]), _number(row[3])
                if uid is not None and gid is not None:
                    return User(uid, gid, row[5] if row[5].startswith(b"/") else b"/")
        raise NoSuchUser(name)

    def owner_name(self, uid: int) -> str:
        """The user's name, or its number in digits."""
        return self._users.name_of(uid)

    def group_name(self, gid: int) -> str:
        """The group's name, or its number in digits."""
        return self._groups.name_of(gid)


class _Table:
    """One colon-separated file, cached for as long as it stays the same."""

    def __init__(self, path: str, min_fields: int) -> None:
        self._path = path
        self._min_fields = min_fields
        self._state: tuple[int, ...] | None = None
        self._rows: list[list[bytes]] = []
        self._names: dict[int, str] = {}

    def rows(self) -> list[list[bytes]]:
        self._refresh()
        return self._rows

    def name_of(self, number: int) -> str:
        self._refresh()
        return self._names.get(number) or str(number)

    def _refresh(self) -> None:
        try:
            # Not blocking, because the box may have put a FIFO in its place.
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            self._state, self._rows, self._names = None, [], {}
            return
        try:
            info = os.fstat(fd)
            state = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
            if state == self._state:
                return
            content = os.read(fd, _MAX_BYTES) if stat.S_ISREG(info.st_mode) else b""
        finally:
            os.close(fd)
        self._state = state
        rows = [line.split(b":") for line in content.split(b"\n")]
        self._rows = [row for row in rows if len(row) >= self._min_fields]
        self._names = {}
        for row in self._rows:
            number = _number(row[2])
            if number is not None:
                self._names.setdefault(number, row[0].decode("utf-8", "replace"))


def _number(field: bytes) -> int | None:
    if not field.isdigit() or len(field) > 10:
        return None
    number = int(field)
    return number if number < _NO_ID else None
