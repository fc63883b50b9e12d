"""What is told of a file: the wire's EntryInfo as a dict, and the metadata in its extended attributes.

A name that is not UTF-8 can't stand in a protobuf string. It is shown with U+FFFD in place of what can't be
decoded: an entry that is seen but can't be addressed is better than a directory that looks empty and can't be
removed.
"""

from __future__ import annotations

import errno
import functools
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
        self._shown: dict[tuple[int, int], tuple[str, str]] = {}

    def of(self, uid: int, gid: int) -> tuple[str, str]:
        """The names of a user and a group, or their numbers in digits."""
        shown = self._shown.get((uid, gid))
        if shown is None:
            user, group = self._users.get(uid, str(uid)), self._groups.get(gid, str(gid))
            shown = self._shown[uid, gid] = text(os.fsencode(user)), text(os.fsencode(group))
        return shown


def text(name: bytes) -> str:
    """A file name as the wire can carry it."""
    return name.decode("utf-8", "replace")


def entry(path: bytes, names: Names) -> dict[str, Any]:
    """Describe the file at an absolute path. A link has its target's type and mode, the rest is its own.

    Raises:
        OSError: There is no such file, or it can't be looked at.
    """
    name = posixpath.basename(posixpath.normpath(path)) or b"/"
    usual: dict[str, Any] = {"symlink_target": None, "is_symlink": False, "metadata": {}}
    return {**usual, **listed(path, name, names)}


def listed(path: bytes, name: bytes, names: Names) -> dict[str, Any]:
    """The same of a file of this name, without what only links or few files have, where it has none."""
    own = shown = os.lstat(path)
    mode = own.st_mode
    owner, group = names.of(own.st_uid, own.st_gid)
    told = {
        "name": text(name),
        "path": text(path),
        "type": "",
        "size": own.st_size,
        "mode": 0,
        "permissions": permissions(mode),
        "owner": owner,
        "group": group,
        "mtime_ns": own.st_mtime_ns,
    }
    if stat.S_ISLNK(mode):
        found, target = _follow(path)
        told["symlink_target"], told["is_symlink"] = text(target), True
        if found is None:
            return told
        shown = found
    elif metadata := read_metadata(path):
        told["metadata"] = metadata
    told["type"] = _type(shown.st_mode)
    told["mode"] = shown.st_mode & 0o777
    return told


@functools.lru_cache(maxsize=256)
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


def _type(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "dir"
    return "file" if stat.S_ISREG(mode) else ""


def read_metadata(path: bytes | int) -> dict[str, str]:
    """The metadata of a file; values that are not UTF-8 are skipped."""
    found: dict[str, str] = {}
    try:
        names = os.listxattr(path)
    except OSError:
        return found
    for attribute in map(os.fsencode, names):
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
