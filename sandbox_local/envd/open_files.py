"""The open files of boxes, which end with their box.

An open file keeps the file system that it lies on, all of it: a client that never finishes a download or an
upload would keep the memory of a box that is long dead.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, finalize

from sandbox_local.isolation.base import Box

_Identity = tuple[int, int]


@dataclass(frozen=True)
class _Files:
    """The open files of one box.

    Attributes:
        nothing: A descriptor of what they become: opened with the first of them, for when it is needed there
            may be no more descriptors.
        release: Closes it; so does the end of who could tell that the box has ended.
        known: By number: who closes one need not say so, since the next file of that number is another.
    """

    nothing: int
    release: Callable[[], object]
    known: dict[int, _Identity] = field(default_factory=dict)


_opened: WeakKeyDictionary[asyncio.Future[Any], _Files] = WeakKeyDictionary()


def note(box: Box, fd: int) -> None:
    """Note a descriptor of a file of a box: when the box ends it reads as empty and can't be written.

    Raises:
        OSError: There are no more descriptors.
    """
    files = _opened.get(box.ended)
    if files is None:
        nothing = _nothing()
        files = _opened[box.ended] = _Files(nothing, finalize(box.ended, os.close, nothing))
        box.ended.add_done_callback(_revoke)
    files.known[fd] = _identity(fd)


def _revoke(ended: asyncio.Future[Any]) -> None:
    files = _opened.pop(ended)
    try:
        for fd, identity in files.known.items():
            try:
                same = _identity(fd) == identity
            except OSError:
                continue  # closed
            if same:
                os.dup2(files.nothing, fd, inheritable=False)
    finally:
        files.release()


def _nothing() -> int:
    """An empty file that nobody can write to."""
    fd = os.memfd_create("gone", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return fd


def _identity(fd: int) -> _Identity:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
