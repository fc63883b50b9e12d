"""The users and groups of a box, as its own /etc/passwd and /etc/group say.

Runs inside the box, on files that anyone there may have changed. Nothing of the C library's user database is
used: it would load modules that lie in the box into a process that must stay trusted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from sandbox_local.isolation.errors import UnknownUser

_MAX_BYTES = 1 << 20
_MAX_ID = 0xFFFFFFFE
_MAX_GROUPS = 1024


class User(NamedTuple):
    """A user, with the ids that its processes run under."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


def find(name: str) -> User:
    """The user of that name.

    Raises:
        UnknownUser: There is none.
    """
    for fields in _lines("/etc/passwd", 7):
        if fields[0] == name and (uid := _id(fields[2])) is not None and (gid := _id(fields[3])) is not None:
            return User(name, uid, gid, _groups(name, gid), fields[5] or "/", fields[6] or "/bin/sh")
    raise UnknownUser(f"no user {name!r} in this sandbox")


def are_one() -> bool:
    """Whether `user` and root are two names of one id, as where the server has but one to give."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split()[2:] == ["1"]
    except OSError:
        return False


def user_names() -> dict[int, str]:
    """The name of every user id."""
    return _names("/etc/passwd", 7)


def group_names() -> dict[int, str]:
    """The name of every group id."""
    return _names("/etc/group", 4)


def _names(path: str, width: int) -> dict[int, str]:
    names: dict[int, str] = {}
    for fields in _lines(path, width):
        if (number := _id(fields[2])) is not None:
            names.setdefault(number, fields[0])
    return names


def _groups(name: str, gid: int) -> tuple[int, ...]:
    found = {gid: None}
    for fields in _lines("/etc/group", 4):
        if name in fields[3].split(",") and (number := _id(fields[2])) is not None:
            found[number] = None
    return tuple(found)[:_MAX_GROUPS]


def _lines(path: str, width: int) -> Iterator[list[str]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return
        text = os.fsdecode(os.read(fd, min(info.st_size, _MAX_BYTES)))
    except OSError:
        return
    finally:
        os.close(fd)
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) == width and fields[0]:
            yield fields


def _id(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    return number if (number := int(text)) <= _MAX_ID else None
