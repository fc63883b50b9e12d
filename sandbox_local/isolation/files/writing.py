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


def open_write(user: str, path: str, metadata: Mapping[str, str]) -> tuple[dict[str, Any], list[int]]:
    """A descriptor that writes a regular file, emptied or made for it, with `metadata` and no other."""
    owner = users.find(user)
    fd, told = _open(expand(path, owner), owner, metadata)
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
    owner = users.find(user)
    content = memoryview(binascii.a2b_base64(contents))
    written: list[dict[str, Any]] = []
    try:
        for path, length in files:
            fd, told = _open(expand(path, owner), owner, metadata)
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


def _open(target: bytes, owner: User, metadata: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Open a regular file to write, emptied or made; also what is told of it."""
    fd = _make(target)
    made = fd is not None
    if fd is None:
        fd = _open_existing(target, owner)
    try:
        give(fd, owner)
        if not made:
            os.ftruncate(fd, 0)
        recorded = replace_metadata(fd, metadata) if metadata or not made else {}
        return fd, {"path": text(target), "name": base_name(target), "metadata": recorded}
    except BaseException:
        os.close(fd)
        raise


def _make(target: bytes) -> int | None:
    """A descriptor of a new file; None when one is there, links that lead nowhere included, or none can be
    made just like that. What was made is a regular file, and none that the kernel makes up."""
    try:
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN, 0o666)
    except OSError:
        return None


def _open_existing(target: bytes, owner: User) -> int:
    try:
        check_regular(os.stat(target), target)
    except FileNotFoundError:
        make_directories(posixpath.dirname(target), owner)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | OPEN, 0o666)
    try:
        proc = os.stat("/proc").st_dev  # not a file system of its own to who works for gVisor
        if check_regular(os.fstat(fd), target).st_dev == proc != os.stat("/").st_dev:
            # Whoever gets the descriptor is not of this box, and the kernel judges a write by who does it.
            raise ValueError(f"what the kernel makes up is written by commands only: {text(target)}")
    except BaseException:
        os.close(fd)
        raise
    return fd
