"""What a template is made from, as the bytes of a tar archive: a file, maybe compressed, or a directory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from sandbox_local.templates.store import TemplateError

_ZSTD = b"\x28\xb5\x2f\xfd"
_LAYOUTS = ("oci-layout", "manifest.json")
LAYOUT = (
    "it is an OCI image layout or of `docker save`, so it holds layers; make a root file system of it: "
    "`docker export $(docker create IMAGE) > rootfs.tar`"
)


@contextlib.contextmanager
def opened(source: Path) -> Iterator[BinaryIO]:
    """Open the archive, or pack the directory by a process of its own.

    Raises:
        TemplateError: There is nothing of use, or the archive can't be read to its end.
        OSError: It can't be read.
    """
    if source.is_dir():
        if any((source / name).is_file() for name in _LAYOUTS) and not (source / "bin").exists():
            raise TemplateError(f"{source}: {LAYOUT}")
        with _packed(source) as file:
            yield file
        return
    if not source.is_file():  # to open a pipe might take for ever
        raise TemplateError(f"{source} is neither an archive nor a directory")
    with open(source, "rb", buffering=0) as raw:
        file = cast(BinaryIO, raw)
        start = file.read(6)
        file.seek(0)
        if start.startswith(_ZSTD):
            with _zstd(file) as plain:
                yield plain
        else:
            yield _plain(file, start)


def _plain(file: BinaryIO, start: bytes) -> BinaryIO:
    if start.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if start == b"\xfd7zXZ\0":
        return cast(BinaryIO, lzma.LZMAFile(file))
    return file


@contextlib.contextmanager
def _zstd(file: BinaryIO) -> Iterator[BinaryIO]:
    program = shutil.which("zstd")
    if program is None:
        raise TemplateError(
            "the archive is compressed by zstd, which is not installed; install the program zstd"
        )
    with subprocess.Popen([program, "-dcq"], stdin=file, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield cast(BinaryIO, process.stdout)
            process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise TemplateError(f"the archive is damaged: zstd exited with {process.returncode}")


@contextlib.contextmanager
def _packed(directory: Path) -> Iterator[BinaryIO]:
    report, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(report)
            with open(told, "wb") as file:
                _pack(directory, file)
            os._exit(0)
        except (BrokenPipeError, KeyboardInterrupt):
            pass  # whoever reads has had enough
        except BaseException as error:  # noqa: BLE001  what was packed so far lacks its end, which is an error
            os.write(
                2, f"{directory} can't be packed: {type(error).__name__}: {error}\n".encode(errors="replace")
            )
        finally:
            os._exit(1)
    os.close(told)
    try:
        with open(report, "rb") as file:
            yield file
    finally:
        os.waitpid(pid, 0)


def _pack(directory: Path, file: BinaryIO) -> None:
    """Write what lies in a directory as an archive; by descriptors, so that nothing that is changed meanwhile
    leads out of it. What is mounted in it stays out, and files of whoever packs belong to root."""
    own = os.geteuid()
    device = directory.stat().st_dev
    names: dict[tuple[int, int], str] = {}
    archive = tarfile.open(  # noqa: SIM115
        fileobj=file, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    )
    for path, below, others, fd in os.fwalk(directory):
        prefix = os.path.relpath(path, directory)
        for name in sorted(below + others):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            member = tarfile.TarInfo(f"{prefix}/{name}")
            member.mode = stat.S_IMODE(info.st_mode)
            member.uid, member.gid = (0, 0) if info.st_uid == own else (info.st_uid, info.st_gid)
            member.mtime = int(info.st_mtime)
            if stat.S_ISDIR(info.st_mode):
                member.type = tarfile.DIRTYPE
            elif first := names.get((info.st_dev, info.st_ino)):
                member.type, member.linkname = tarfile.LNKTYPE, first
            elif stat.S_ISLNK(info.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=fd)
            elif stat.S_ISFIFO(info.st_mode):
                member.type = tarfile.FIFOTYPE
            elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                member.type = tarfile.CHRTYPE
            elif stat.S_ISSOCK(info.st_mode):
                continue
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                names.setdefault((info.st_dev, info.st_ino), member.name)
            if member.type == tarfile.REGTYPE:
                _pack_file(archive, member, name, fd)
            else:
                archive.addfile(member)
            archive.members.clear()  # type: ignore[attr-defined]
        below[:] = [
            name for name in below if os.stat(name, dir_fd=fd, follow_symlinks=False).st_dev == device
        ]
    archive.close()


def _pack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, directory: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as content:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(f"{member.name} was replaced meanwhile")
        member.size = info.st_size
        archive.addfile(member, content)
