"""The kernel's inotify, which Python's standard library does not offer."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

MODIFY = 0x2
ATTRIB = 0x4
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
Q_OVERFLOW = 0x4000
IGNORED = 0x8000
ISDIR = 0x40000000

_ONLYDIR = 0x01000000
_DONT_FOLLOW = 0x02000000

_HEADER = struct.Struct("iIII")
_READ = 64 << 10

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """What happened: to a watched directory (`name` is empty), or to something in it."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """An inotify instance.

    Attributes:
        fd: Readable when something has happened.
    """

    def __init__(self) -> None:
        """Make one.

        Raises:
            OSError: There are too many of them.
        """
        self.fd = _check(_libc.inotify_init1(os.O_CLOEXEC), "inotify_init1")

    def add(self, path: bytes, mask: int, *, follow: bool) -> int:
        """Watch a directory; returns the number that its events carry.

        Args:
            path: The directory.
            mask: What to tell of.
            follow: Whether the path may be a symbolic link.

        Raises:
            OSError: It can't be watched.
        """
        mask |= _ONLYDIR if follow else _ONLYDIR | _DONT_FOLLOW
        return _check(_libc.inotify_add_watch(self.fd, ctypes.c_char_p(path), ctypes.c_uint32(mask)), path)

    def remove(self, watch: int) -> None:
        """Stop watching a directory; one that has gone is no error."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[Event]:
        """What has happened, oldest first: some of it, if there is much; waits until something has."""
        data = os.read(self.fd, _READ)
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + length
            yield Event(watch, mask, data[offset - length : offset].rstrip(b"\0"))

    def close(self) -> None:
        """Stop watching everything."""
        os.close(self.fd)


def _check(result: int, what: bytes | str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
