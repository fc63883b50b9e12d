"""The open files of boxes, which end with their box.

An open file keeps the file system that it lies on, all of it: a client that never finishes a download or an
upload would keep the memory of a box that is long dead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import Any
from weakref import WeakKeyDictionary

from sandbox_local.isolation.base import Box

_Identity = tuple[int, int]

# By the descriptor's number: who closes one need not say so, since the next file of that number is another.
_opened: WeakKeyDictionary[asyncio.Future[Any], dict[int, _Identity]] = WeakKeyDictionary()


def note(box: Box, fd: int) -> None:
    """Note a descriptor of a file of a box: when the box ends it reads as empty and can't be written."""
    files = _opened.get(box.ended)
    if files is None:
        files = _opened[box.ended] = {}
        box.ended.add_done_callback(_revoke)
    files[fd] = _identity(fd)


def _revoke(ended: asyncio.Future[Any]) -> None:
    nothing = os.memfd_create("gone", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(nothing, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        for fd, identity in _opened.pop(ended, {}).items():
            try:
                same = _identity(fd) == identity
            except OSError:
                continue  # closed
            if same:
                os.dup2(nothing, fd, inheritable=False)
    finally:
        os.close(nothing)


def _identity(fd: int) -> _Identity:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
