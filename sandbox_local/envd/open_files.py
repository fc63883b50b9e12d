"""The open files of boxes, which end with their box.

An open file keeps the file system that it lies on, all of it: a client that never finishes a download or an
upload would keep the memory of a box that is long dead.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
from typing import Any
from weakref import WeakKeyDictionary

from sandbox_local.isolation.base import Box

_Identity = tuple[int, int]

# By the descriptor's number: who closes one need not say so, since the next file of that number is another.
_opened: WeakKeyDictionary[asyncio.Future[Any], dict[int, _Identity]] = WeakKeyDictionary()


def note(box: Box, fd: int) -> None:
    """Note a descriptor of a file of a box: when the box ends it reads as empty and can't be written."""
    _nothing()  # now: when it is needed there may be no more descriptors
    files = _opened.get(box.ended)
    if files is None:
        files = _opened[box.ended] = {}
        box.ended.add_done_callback(_revoke)
    files[fd] = _identity(fd)


def _revoke(ended: asyncio.Future[Any]) -> None:
    for fd, identity in _opened.pop(ended, {}).items():
        try:
            same = _identity(fd) == identity
        except OSError:
            continue  # closed
        if same:
            os.dup2(_nothing(), fd, inheritable=False)


@functools.cache
def _nothing() -> int:
    """An empty file that nobody can write to."""
    fd = os.memfd_create("gone", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return fd


def _identity(fd: int) -> _Identity:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
