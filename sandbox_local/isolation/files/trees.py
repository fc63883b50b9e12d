"""Walking and removing directory trees that may be of any depth, any width, and change meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_NAME_COST = 128  # bytes that one more name in memory costs, beside its own


def walk(root: bytes, depth: int, budget: int) -> Iterator[tuple[bytes, bytes]]:
    """The paths below a directory and their last names, `depth` levels deep, each directory before its
    contents, names in byte order.

    `root` may be a symbolic link; links below it are not descended. What vanishes meanwhile is passed over.

    Args:
        root: An absolute path.
        depth: Levels, at least 1.
        budget: Bytes of memory that the names may take.

    Raises:
        OSError: `root` can't be read, or there is more than the budget allows (EOVERFLOW).
    """

    def names(directory: bytes) -> list[tuple[bytes, bool]]:
        nonlocal budget
        found = []
        with os.scandir(directory) as scan:
            for item in scan:
                budget -= len(item.name) + _NAME_COST
                if budget < 0:
                    raise OverflowError
                found.append((item.name, item.is_dir(follow_symlinks=False)))
        return sorted(found, reverse=True)

    try:
        levels = [(root if root.endswith(b"/") else root + b"/", names(root))]
        while levels:
            above, remaining = levels[-1]
            if not remaining:
                levels.pop()
                continue
            name, is_directory = remaining.pop()
            path = above + name
            yield path, name
            if is_directory and len(levels) < depth:
                try:
                    levels.append((path + b"/", names(path)))
                except OSError:
                    continue
    except OverflowError:
        raise OSError(errno.EOVERFLOW, "too many entries to list at once") from None


def remove_tree(path: bytes) -> None:
    """Remove a file or a directory with all in it; a missing one is removed already.

    One directory is open at a time, so that depth costs no descriptors, and it is entered without following
    links.

    Raises:
        OSError: Something can't be removed, or a directory was moved while it was being emptied.
    """
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as refusal:
        try:
            fd = _open_directory(path)
        except NotADirectoryError:
            raise refusal from None
    try:
        trail = [(_identity(fd), _unlink_files(fd))]
        while True:
            subdirectories = trail[-1][1]
            if subdirectories:
                child = _open_directory(subdirectories[-1], dir_fd=fd)
                os.close(fd)
                fd = child
                trail.append((_identity(fd), _unlink_files(fd)))
                continue
            trail.pop()
            if not trail:
                break
            parent = _open_directory("..", dir_fd=fd)
            os.close(fd)
            fd = parent
            identity, siblings = trail[-1]
            if _identity(fd) != identity:
                raise OSError(errno.ESTALE, "a directory was moved while it was being removed")
            os.rmdir(siblings.pop(), dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(path)


def _unlink_files(fd: int) -> list[str]:
    """Unlink all in a directory that is no directory; returns the names of those that are."""
    directories = []
    with os.scandir(fd) as scan:
        for item in scan:
            if item.is_dir(follow_symlinks=False):
                directories.append(item.name)
            else:
                try:
                    os.unlink(item.name, dir_fd=fd)
                except FileNotFoundError:
                    pass
    return directories


def _open_directory(name: bytes | str, dir_fd: int | None = None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
