"""Unpacking an archive that nobody trusts, by a process for which the destination is the root directory.

So no name, link or order of entries leads out. What this sees to is the rest: bounds, owners, no devices, and
that an archive which is cut off or damaged is no template.
"""

from __future__ import annotations

import os
import tarfile
from typing import BinaryIO, NamedTuple

from sandbox_local.isolation.ids import Ids
from sandbox_local.templates.store import TemplateError

_LEFT_OUT = frozenset({"dev", "proc", "run", "sys"})
"""Directories of which sandboxes have their own."""

_CHUNK = 1 << 20
_BLOCK = 512
_OVERHEAD = 4 << 10
"""Bytes that an entry counts for, whatever it holds, and may take in the archive beside that."""


class Unpacked(NamedTuple):
    """What was unpacked: bytes in files, and files, directories and links; and what was not."""

    bytes: int
    files: int
    devices: int


class _Reader:
    """The archive as `tarfile` reads it: forwards, but for the last that was read."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self._position = 0
        self._again = b""
        self.last = b""

    def tell(self) -> int:
        return self._position - len(self._again)

    def seek(self, position: int) -> None:
        back = self.tell() - position
        if 0 < back <= len(self.last) - len(self._again):
            self._again = self.last[len(self.last) - len(self._again) - back :]
        else:
            while position > self.tell() and self.read(min(position - self.tell(), _CHUNK)):
                pass

    def read(self, size: int) -> bytes:
        if self._again:
            found, self._again = self._again[:size], self._again[size:]
            return found
        if self._position + size > self._most:
            raise TemplateError(
                f"the archive holds more than the {self._most} bytes that it may; see --max-size"
            )
        parts = []
        left = size
        while left and (part := self._file.read(left)):
            parts.append(part)
            left -= len(part)
        self.last = b"".join(parts)
        self._position += len(self.last)
        return self.last


class Unpacker:
    """Unpacks one archive into `/`."""

    def __init__(self, file: BinaryIO, ids: Ids, most: int) -> None:
        """Unpack nothing yet.

        Args:
            file: The archive, uncompressed.
            ids: Which ids owners may have.
            most: Bound of the bytes that its files may hold, each counted with its overhead.
        """
        self._reader = _Reader(file, 2 * most)
        self._ids = Ids(0, ids.size)
        self._most = most
        self._bytes = self._files = self._devices = 0

    def run(self) -> Unpacked:
        """Do it.

        Raises:
            TemplateError: It is no archive, holds too much, or what no template may.
            OSError: The file system refused.
        """
        try:
            self._unpack()
        except (tarfile.TarError, EOFError, OverflowError) as error:
            raise TemplateError(f"not a tar archive, or a damaged one: {error}") from None
        return Unpacked(self._bytes, self._files, self._devices)

    def _unpack(self) -> None:
        archive = tarfile.TarFile(fileobj=self._reader, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]
            path = _inside(member.name)
            if path == "/" or path.split("/")[1] in _LEFT_OUT:
                continue
            self._count(member)
            try:
                self._place(archive, member, path)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise TemplateError(f"{member.name!r} can't be unpacked: {reason}") from None
        if self._reader.last != bytes(_BLOCK):
            raise TemplateError("the archive is cut off or damaged: it has no end mark")
        while self._reader.read(_CHUNK):
            pass  # what compressed it left a checksum at its end

    def _count(self, member: tarfile.TarInfo) -> None:
        self._files += 1
        self._bytes += member.size if member.isreg() else 0
        if member.size < 0 or self._bytes + self._files * _OVERHEAD > self._most:
            raise TemplateError(
                f"it holds more than the {self._most} bytes that a template may; see --max-size"
            )

    def _place(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        """Put one entry where it belongs, in place of what is there."""
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        if member.isdir():
            if not _is_directory(path):
                _clear(path)
                os.mkdir(path)
        elif member.ischr() or member.isblk():
            self._devices += 1
            return
        elif member.islnk():
            target = _inside(member.linkname)
            if target != path:
                _clear(path)
                os.link(target, path, follow_symlinks=False)
            return
        else:
            _clear(path)
            if member.issym():
                os.symlink(member.linkname, path)
            elif member.isfifo():
                os.mkfifo(path)
            elif member.isreg():
                _write(archive, member, path)
            else:
                raise ValueError(f"unknown type {member.type!r}")
        self._give(path, member)

    def _give(self, path: str, member: tarfile.TarInfo) -> None:
        if self._ids.size > 1 and not (0 <= member.uid < self._ids.size and 0 <= member.gid < self._ids.size):
            raise ValueError(
                f"its owner {member.uid}:{member.gid} is not among the {self._ids.size} ids of a sandbox"
            )
        self._ids.chown(path, member.uid, member.gid)
        if not member.issym():
            os.chmod(path, member.mode & 0o7777)  # after the owner: a change of that takes away set-user-id
        if member.isreg():
            os.utime(path, (member.mtime, member.mtime))


def _inside(name: str) -> str:
    """The absolute path of an entry."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise TemplateError(f"the archive has an entry with '..' in its path: {name!r}")
    return "/" + "/".join(parts)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _clear(path: str) -> None:
    """Remove what is at a path: never written through, if it is a link."""
    if _is_directory(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    source = archive.extractfile(member)
    assert source is not None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        while chunk := source.read(_CHUNK):
            if not chunk.strip(b"\0"):
                file.seek(len(chunk), os.SEEK_CUR)  # a hole stays one
                continue
            while chunk:
                chunk = chunk[file.write(chunk) :]
        file.truncate(member.size)
