"""Making files: a descriptor to write a large one through, or small ones whole, many in one request.

A small file is over before a descriptor of it would be with the server. The contents of small ones come with
the request, not in memory that is shared: what a box holds on to is to be its own.
"""

from __future__ import annotations

import binascii
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox_local.isolation import users
from sandbox_local.isolation.errors import describe
from sandbox_local.isolation.files.entry import replace_metadata, text
from sandbox_local.isolation.files.paths import OPEN, base_name, check_regular, expand, give, make_directories
from sandbox_local.isolation.users import User

_WRITE = os.O_WRONLY | os.O_CREAT | OPEN


def open_write(user: str, path: str, metadata: Mapping[str, str]) -> tuple[dict[str, Any], list[int]]:
    """A descriptor that writes a regular file, emptied or made for it, with `metadata` and no other."""
    fd, told = _Opening(users.find(user), metadata).open(path)
    return told, [fd]


def write_files(
    user: str, files: Sequence[tuple[str, int]], contents: str, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], list[int]]:
    """Write files one after the other, up to the first that fails, which is left as far as it came.

    Args:
        user: As everywhere.
        files: The path and length of each.
        contents: All their bytes, in base64.
        metadata: The whole metadata of each.

    Returns:
        What `open_write` tells, for each that was written; and the error of the one that was not, if any.
    """
    opening = _Opening(users.find(user), metadata)
    content = memoryview(binascii.a2b_base64(contents))
    written: list[dict[str, Any]] = []
    try:
        for path, length in files:
            fd, told = opening.open(path)
            try:
                own, content = content[:length], content[length:]
                while own:
                    own = own[os.write(fd, own) :]
            finally:
                os.close(fd)
            written.append(told)
    except (OSError, ValueError) as error:
        return {"files": written, "error": describe(error)}, []
    return {"files": written}, []


class _Opening:
    """Opens files to write, for one operation."""

    def __init__(self, owner: User, metadata: Mapping[str, str]) -> None:
        self._owner = owner
        self._metadata = metadata
        proc = os.stat("/proc").st_dev  # not a file system of its own to who works for gVisor
        self._made_up = proc if proc != os.stat("/").st_dev else None

    def open(self, path: str) -> tuple[int, dict[str, Any]]:
        """A descriptor of an empty file that is the owner's, and what is told of it."""
        target = expand(path, self._owner)
        try:
            check_regular(os.stat(target), target)
            fd, new = os.open(target, _WRITE, 0o666), False
        except FileNotFoundError:
            fd, new = self._make(target)
        try:
            if new:  # so it is a regular file, and empty
                give(fd, self._owner)
                recorded = replace_metadata(fd, self._metadata) if self._metadata else {}
            else:
                if check_regular(os.fstat(fd), target).st_dev == self._made_up:
                    # Whoever gets the descriptor is not of this box, and the kernel judges a write by who
                    # does it.
                    raise ValueError(f"what the kernel makes up is written by commands only: {text(target)}")
                give(fd, self._owner)
                os.ftruncate(fd, 0)
                recorded = replace_metadata(fd, self._metadata)
            return fd, {"path": text(target), "name": base_name(target), "metadata": recorded}
        except BaseException:
            os.close(fd)
            raise

    def _make(self, target: bytes) -> tuple[int, bool]:
        """A descriptor of a file that was missing; and whether it was made for that, and not by others."""
        try:
            return os.open(target, _WRITE | os.O_EXCL, 0o666), True
        except OSError:  # the directory is missing, or a link leads here that led nowhere
            make_directories(posixpath.dirname(target), self._owner)
            return os.open(target, _WRITE, 0o666), False
