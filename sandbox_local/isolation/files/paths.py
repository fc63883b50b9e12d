"""What a path means to a user, and what is on the way to it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from sandbox_local.isolation import users
from sandbox_local.isolation.files.entry import text
from sandbox_local.isolation.users import User

_MAX_PATH = 4095  # bytes that the kernel takes at once
_MAX_NAME = 255

OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How every file is opened: whatever it turns out to be, nobody waits, and commands do not inherit it."""


def expand(path: str, user: User) -> bytes:
    """The absolute path that `path` means to a user.

    Raises:
        ValueError: As `expand_from`.
    """
    return expand_from(path, user.home)


def expand_from(path: str, home: str) -> bytes:
    """The absolute path that `path` means to whom a home belongs: "", "~", "~/x" and what is relative are in
    it.

    Raises:
        ValueError: It is another user's home, or no path at all.
    """
    if "\0" in path:
        raise ValueError("path contains a NUL byte")
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise ValueError("path is not UTF-8") from None
    # What is shorter than the longest name is so everywhere.
    if len(raw) > _MAX_NAME and (len(raw) > _MAX_PATH or max(map(len, raw.split(b"/"))) > _MAX_NAME):
        raise ValueError("path is too long, or a name in it is")
    if raw.startswith(b"/"):
        return raw
    if raw == b"~" or raw.startswith(b"~/"):
        raw = raw[2:]
    elif raw.startswith(b"~"):
        raise ValueError("cannot expand user-specific home dir")
    return posixpath.normpath(posixpath.join(b"/", os.fsencode(home), raw.lstrip(b"/")))


def base_name(path: bytes) -> str:
    """The last name in a path."""
    name = path.rpartition(b"/")[2]
    return text(posixpath.basename(posixpath.normpath(path)) if name in (b"", b".", b"..") else name)


def make_directories(path: bytes, owner: User) -> None:
    """Make a directory and those above it that are missing, the owner's, mode 0755; being there is no error.

    Raises:
        NotADirectoryError: Something else is in the way.
    """
    missing = []
    while not _is_directory(path):
        missing.append(path)
        path = posixpath.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o755)
            give(directory, owner)
        except FileExistsError:
            if not os.path.isdir(directory):  # a link that leads nowhere
                raise NotADirectoryError(errno.ENOTDIR, f"not a directory: {text(directory)}") from None


def _is_directory(path: bytes) -> bool:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(info.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"not a directory: {text(path)}")
    return True


def check_regular(info: os.stat_result, path: bytes) -> os.stat_result:
    """Let a regular file pass.

    Raises:
        IsADirectoryError: It is a directory.
        ValueError: It is something else: reading or writing it might never end.
    """
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, f"path is a directory: {text(path)}")
    if not stat.S_ISREG(info.st_mode):
        raise ValueError(f"path is not a regular file: {text(path)}")
    return info


def give(target: bytes | int, owner: User) -> None:
    """Make what was made for a user that user's."""
    try:
        os.chown(target, owner.uid, owner.gid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if users.are_one():  # all files are its own, but who watches is told of it as elsewhere
            os.chown(target, 0, 0)
