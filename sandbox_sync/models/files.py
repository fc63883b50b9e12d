"""Files and directories, what they are written from, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from os import PathLike
from typing import IO, TypeAlias, TypedDict

WriteData: TypeAlias = "str | bytes | bytearray | memoryview | IO[bytes] | IO[str] | Iterable[bytes | str]"
"""What a file can be written from. Text is written as UTF-8; a file object from where it stands."""


class WriteEntry(TypedDict):
    """One of several files to write.

    Attributes:
        path: Where to write it.
        data: What to write.
    """

    path: str | PathLike[str]
    data: WriteData


class FileType(str, Enum):
    """The kinds of entries in a directory."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


@dataclass(frozen=True)
class WriteInfo:
    """A file that was written.

    Attributes:
        name: Its name.
        type: What it is.
        path: Its path.
        metadata: What is recorded beside its contents, if anything.
    """

    name: str
    type: FileType | None
    path: str
    metadata: dict[str, str] | None = None


@dataclass(frozen=True)
class EntryInfo:
    """An entry of a directory.

    Attributes:
        name: Its name.
        type: What it is; None for what is neither a file, a directory nor a link, such as a socket.
        path: Its path.
        size: Its size in bytes.
        mode: Its permission bits; those of the target for a link.
        permissions: The same in letters, for example "-rw-r--r--".
        owner: The user who owns it.
        group: The group that owns it.
        modified_time: When its contents last changed.
        symlink_target: Where a link leads to; None for everything else.
        metadata: What is recorded beside its contents, if anything.
    """

    name: str
    type: FileType | None
    path: str
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: datetime
    symlink_target: str | None = None
    metadata: dict[str, str] | None = None


class FilesystemEventType(str, Enum):
    """What happens to a file or directory."""

    CHMOD = "chmod"
    CREATE = "create"
    REMOVE = "remove"
    RENAME = "rename"
    WRITE = "write"


@dataclass(frozen=True)
class FilesystemEvent:
    """Something that happened in a watched directory.

    Moving something inside of it is two events: RENAME for the old name and CREATE for the new one.

    Attributes:
        name: Path of what it happened to, relative to the directory; "." for the directory itself.
        type: What happened.
        entry: What it is now, if that was asked for and it is still there.
    """

    name: str
    type: FilesystemEventType
    entry: EntryInfo | None = None
