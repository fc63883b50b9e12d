"""What is told of a file: the wire's EntryInfo as a dict, and the metadata in its extended attributes.

A name that is not UTF-8 can't stand in a protobuf string. It is shown with U+FFFD in place of what can't be
decoded: an entry that is seen but can't be addressed is better than a directory that looks empty and can't be
removed.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Mapping
from typing import Any

from sandbox_local.isolation import users
from sandbox_local.isolation.users import User

_ATTRIBUTE = b"user.e2b."

_KIND_LETTERS = (  # in the order in which Go's FileMode writes them
    (stat.S_ISDIR, "d"),
    (stat.S_ISLNK, "L"),
    (stat.S_ISBLK, "D"),
    (stat.S_ISCHR, "D"),
    (stat.S_ISFIFO, "p"),
    (stat.S_ISSOCK, "S"),
    (lambda mode: bool(mode & stat.S_ISUID), "u"),
    (lambda mode: bool(mode & stat.S_ISGID), "g"),
    (stat.S_ISCHR, "c"),
    (lambda mode: bool(mode & stat.S_ISVTX), "t"),
)


class Names:
    """The names of the box's users and groups as one of them sees them, read once: for one operation."""

    def __init__(self, viewer: User) -> None:
        self._users = users.user_names()
        self._groups = users.group_names()
        if users.are_one():  # then all that is theirs belongs to who looks, as in that user's commands
            self._users[0] = viewer.name
            self._groups[0] = self._groups.get(viewer.gid, viewer.name)

    def of_user(self, uid: int) -> str:
        """The user's name, or its number in digits."""
        return text(os.fsencode(self._users.get(uid, str(uid))))

    def of_group(self, gid: int) -> str:
        """The group's name, or its number in digits."""
        return text(os.fsencode(self._groups.get(gid, str(gid))))


def text(name: bytes) -> str:
    """A file name as the wire can carry it."""
    return name.decode("utf-8", "replace")


def entry(path: bytes, names: Names) -> dict[str, Any]:
    """Describe the file at an absolute path. A link has its target's type and mode, the rest is its own.

    Raises:
        OSError: There is no such file, or it can't be looked at.
    """
    own = os.lstat(path)
    is_symlink = stat.S_ISLNK(own.st_mode)
    shown: os.stat_result | None = own
    target = None
    if is_symlink:
        shown, target = _follow(path)
    return {
        "name": text(posixpath.basename(posixpath.normpath(path)) or b"/"),
        "path": text(path),
        "type": _type(shown),
        "size": own.st_size,
        "mode": stat.S_IMODE(shown.st_mode) & 0o777 if shown else 0,
        "permissions": permissions(own.st_mode),
        "owner": names.of_user(own.st_uid),
        "group": names.of_group(own.st_gid),
        "mtime_ns": own.st_mtime_ns,
        "symlink_target": None if target is None else text(target),
        "is_symlink": is_symlink,
        "metadata": {} if is_symlink else read_metadata(path),
    }


def permissions(mode: int) -> str:
    """A mode in letters as Go's FileMode writes it: "-rw-r--r--", "dtrwxrwxrwx", "Lrwxrwxrwx"."""
    kind = "".join(letter for test, letter in _KIND_LETTERS if test(mode))
    bits = "".join(letter if mode & (0o400 >> i) else "-" for i, letter in enumerate("rwxrwxrwx"))
    return (kind or "-") + bits


def _follow(path: bytes) -> tuple[os.stat_result | None, bytes]:
    """The file that a link leads to and its path; nothing and the link's own path when it leads nowhere."""
    try:
        found = os.stat(path)  # the kernel bounds the number of links, which makes realpath safe to ask
        return found, os.path.realpath(path, strict=True)
    except OSError:
        return None, path


def _type(info: os.stat_result | None) -> str:
    if info is None:
        return ""
    if stat.S_ISDIR(info.st_mode):
        return "dir"
    return "file" if stat.S_ISREG(info.st_mode) else ""


def read_metadata(path: bytes | int) -> dict[str, str]:
    """The metadata of a file; values that are not UTF-8 are skipped."""
    found: dict[str, str] = {}
    try:
        attributes = [os.fsencode(name) for name in os.listxattr(path)]
    except OSError:
        return found
    for attribute in attributes:
        if attribute.startswith(_ATTRIBUTE):
            try:
                value = os.getxattr(path, attribute).decode("utf-8")
                found[attribute[len(_ATTRIBUTE) :].decode("utf-8")] = value
            except (OSError, UnicodeDecodeError):
                continue
    return found


def replace_metadata(fd: int, new: Mapping[str, str]) -> dict[str, str]:
    """Make `new` the whole metadata of an open file; returns what it is then. Where files can't have any,
    nothing is stored.

    Raises:
        OSError: No space.
    """
    try:
        had = [name for name in map(os.fsencode, os.listxattr(fd)) if name.startswith(_ATTRIBUTE)]
        if not had and not new:
            return {}
        for attribute in had:
            if text(attribute[len(_ATTRIBUTE) :]) not in new:
                os.removexattr(fd, attribute)
        for key, value in new.items():
            os.setxattr(fd, _ATTRIBUTE + key.encode("utf-8"), value.encode("utf-8"))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
    return read_metadata(fd)
