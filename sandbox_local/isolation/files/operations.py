"""The file operations of a box, done inside it: in its own root, as its own root user.

Every path is expanded and resolved here, so that none can reach the files of the host. The user of an
operation decides where its paths begin (at home) and who owns what is made; that user's permissions are not
applied. A file is opened only when it is a regular one, and what an operation hands out is a descriptor:
contents pass through this process only where they are small and are written at once.
"""

from __future__ import annotations

import errno
import os
import posixpath
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Any

from sandbox_local.isolation import users
from sandbox_local.isolation.files.entry import Names, entry, text
from sandbox_local.isolation.files.listing import list_dir, list_small_dir
from sandbox_local.isolation.files.paths import OPEN, base_name, check_regular, expand, give, make_directories
from sandbox_local.isolation.files.trees import remove_tree
from sandbox_local.isolation.files.usage import usage
from sandbox_local.isolation.files.watching import Watcher
from sandbox_local.isolation.files.writing import open_write, write_files

Answer = tuple[dict[str, Any], list[int]]

_MAX_PSEUDO_FILE = 4 << 20  # bytes taken of a file that the kernel makes up as it is read
_COPY = 1 << 20


def describe(user: str, path: str) -> Answer:
    """The entry of a path itself."""
    viewer = users.find(user)
    return {"entry": entry(expand(path, viewer), Names(viewer))}, []


def expand_path(user: str, path: str) -> Answer:
    """What a path means to a user; whether anything is there is not asked."""
    return {"path": text(posixpath.normpath(expand(path, users.find(user))))}, []


def make_dir(user: str, path: str) -> Answer:
    """Make a directory and those above it; FileExistsError when it is there."""
    owner = users.find(user)
    target = expand(path, owner)
    try:
        there = os.stat(target)
    except FileNotFoundError:
        make_directories(target, owner)
        return {"entry": entry(target, Names(owner))}, []
    if stat.S_ISDIR(there.st_mode):
        raise FileExistsError(errno.EEXIST, f"directory already exists: {text(target)}")
    raise ValueError(f"path already exists but it is not a directory: {text(target)}")


def move(user: str, source: str, destination: str) -> Answer:
    """Rename; directories above the destination are made, a file there is replaced."""
    owner = users.find(user)
    old, new = expand(source, owner), expand(destination, owner)
    os.lstat(old)
    make_directories(posixpath.dirname(posixpath.normpath(new)), owner)
    try:
        os.rename(old, new)
    except OSError as error:
        # A sandbox looks like one file system to those who use it, but a box is made of several.
        if error.errno != errno.EXDEV or not _carry(old, new):
            raise
    return {"entry": entry(new, Names(owner))}, []


def remove(user: str, path: str) -> Answer:
    """Remove a file, or a directory with all in it; what is not there is removed already."""
    remove_tree(posixpath.normpath(expand(path, users.find(user))))
    return {}, []


def open_read(user: str, path: str) -> Answer:
    """A descriptor that reads a regular file, with the file's name and time."""
    target = expand(path, users.find(user))
    check_regular(os.stat(target), target)
    fd = os.open(target, os.O_RDONLY | OPEN)
    try:
        info = check_regular(os.fstat(fd), target)
        if info.st_size == 0:
            fd = _settle(fd)
    except BaseException:
        os.close(fd)
        raise
    return {"name": base_name(target), "mtime_ns": info.st_mtime_ns}, [fd]


def compose(user: str, sources: Sequence[str], destination: str) -> Answer:
    """Put files together in their order under one name, all at once, and remove them."""
    owner = users.find(user)
    parts = [posixpath.normpath(expand(source, owner)) for source in sources]
    target = posixpath.normpath(expand(destination, owner))
    if not parts:
        raise ValueError("source_paths must not be empty")
    if len({*parts, target}) <= len(parts):
        raise ValueError("the source paths and the destination must all differ")
    for part in parts:
        check_regular(os.stat(part), part)
    try:
        check_regular(os.stat(target), target)
    except FileNotFoundError:
        make_directories(posixpath.dirname(target), owner)
    draft = posixpath.join(posixpath.dirname(target), b".compose-" + os.urandom(8).hex().encode())
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        give(fd, owner)
        for part in parts:
            _append(fd, part)
        os.rename(draft, target)
    except BaseException:
        os.unlink(draft)
        raise
    finally:
        os.close(fd)
    for part in parts:
        os.unlink(part)
    return {"path": text(target), "name": base_name(target)}, []


def measure() -> Answer:
    """What the box uses of processor, memory and disk."""
    return usage(), []


def watch(user: str, path: str, recursive: bool, include_entry: bool) -> Answer:
    """A socket to read from what happens in a directory, as `Watcher.run` tells; closing it ends that."""
    viewer = users.find(user)
    watcher = Watcher(expand(path, viewer), viewer, recursive, include_entry)
    ours, theirs = socket.socketpair()
    with ours:
        if os.fork() == 0:
            try:
                theirs.close()
                watcher.run(ours)
            finally:
                os._exit(0)
    watcher.close()
    return {}, [theirs.detach()]


def _carry(old: bytes, new: bytes) -> bool:
    """Move to another file system, as rename(2) would if it could; False if that failed."""
    silence = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
    pid = os.posix_spawn("/bin/mv", [b"mv", b"-fT", b"--", old, new], {}, file_actions=silence)
    return os.waitpid(pid, 0)[1] == 0


def _settle(fd: int) -> int:
    """A descriptor with the contents of a file that says it is empty: those in /proc always say so."""
    copy = os.memfd_create("contents", os.MFD_CLOEXEC)
    try:
        size = 0
        while data := os.read(fd, _COPY):
            size += len(data)
            if size > _MAX_PSEUDO_FILE:
                raise OSError(errno.EFBIG, "the file has no size and too much content")
            os.write(copy, data)
    except BaseException:
        os.close(copy)
        raise
    os.close(fd)
    return copy


def _append(fd: int, path: bytes) -> None:
    source = os.open(path, os.O_RDONLY | OPEN)
    try:
        check_regular(os.fstat(source), path)
        while os.sendfile(fd, source, None, _COPY):
            pass
    finally:
        os.close(source)


QUICK: dict[str, Callable[..., Answer]] = {
    "stat": describe,
    "expand": expand_path,
    "make_dir": make_dir,
    "open_read": open_read,
    "open_write": open_write,
    "write_files": write_files,
}
"""The operations that are done at once, by their names on the wire."""

LONG: dict[str, Callable[..., Answer]] = {
    "list_dir": list_dir,
    "move": move,
    "remove": remove,
    "compose": compose,
    "usage": measure,
    "watch": watch,
}
"""The operations that may take long."""

SMALL: dict[str, Callable[..., Answer | None]] = {"list_dir": list_small_dir}
"""Those of them that are tried at once, since there is usually little to do; None says that it is much."""
