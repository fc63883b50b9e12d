"""Making directories and files for boxes, with owners as the box sees them."""

from __future__ import annotations

import os

from sandbox_local.isolation import syscalls
from sandbox_local.isolation.ids import Ids


def make_directories(path: str, ids: Ids) -> None:
    """Make a directory of the box's root where it is missing, with its parents."""
    if path and not os.path.isdir(path):
        make_directories(os.path.dirname(path), ids)
        os.mkdir(path, 0o755)
        ids.chown(path, 0, 0)


def write(path: str, content: bytes, ids: Ids, *, mode: int = 0o644) -> None:
    """Write a file of the box's root, with the directories that it needs."""
    make_directories(os.path.dirname(path), ids)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        file.write(content)
    ids.chown(path, 0, 0)


def link(path: str, target: str, ids: Ids) -> None:
    """Make a symbolic link of the box's root, with the directories that it needs."""
    make_directories(os.path.dirname(path), ids)
    os.symlink(target, path)
    ids.chown(path, 0, 0)


def bind_file(source: str, target: str, ids: Ids) -> None:
    """Show a file at a path that does not exist yet."""
    write(target, b"", ids)
    syscalls.bind(source, target)


def copy(source: str, target: str, ids: Ids) -> None:
    """Copy what lies in a directory into another that exists, for a box with these ids."""
    with os.scandir(source) as entries:
        for entry in entries:
            path = f"{target}/{entry.name}"
            info = entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), path)
            elif entry.is_dir():
                make_directories(path, ids)
                copy(entry.path, path, ids)
            else:
                with open(entry.path, "rb") as file:
                    write(path, file.read(), ids)
            ids.chown(path, info.st_uid, info.st_gid)
            if not entry.is_symlink():
                os.chmod(path, info.st_mode)
