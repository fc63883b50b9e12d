"""Small root file systems for tests of templates, made of this machine's own programs."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAMS = ("bash", "cat", "chmod", "id", "ls", "mkdir", "rm", "sleep", "stat", "touch")


def make_rootfs(directory: Path, programs: tuple[str, ...] = PROGRAMS) -> Path:
    """Put programs and the libraries that they need into a directory."""
    for name in programs:
        program = shutil.which(name)
        assert program
        _add_program(directory, program, f"bin/{name}")
    return directory


def add_python(directory: Path) -> bool:
    """Add this machine's own Python to a root file system; False if it has none."""
    program = "/usr/bin/python3"
    command = [program, "-ISc", "import os; print(os.path.dirname(os.__file__))"]
    if not os.access(program, os.X_OK):
        return False
    library = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    _add_program(directory, program, program[1:])
    left_out = shutil.ignore_patterns("__pycache__", "*-packages", "config-*", "idlelib", "lib2to3", "test")
    shutil.copytree(library, directory / library[1:], ignore=left_out, symlinks=True)
    return True


def make_archive(path: Path, rootfs: Path, *entries: tarfile.TarInfo, mode: str = "w") -> Path:
    """Make an archive of a root file system, with more entries behind it."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(rootfs, ".")
        for entry in entries:
            if entry.size < 1 << 30:
                archive.addfile(entry, io.BytesIO(b"x" * entry.size))
            else:  # only the claim: whoever believes it finds the archive cut off
                assert archive.fileobj is not None
                archive.fileobj.write(entry.tobuf(archive.format, archive.encoding, archive.errors))
                archive.offset += tarfile.BLOCKSIZE
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """An entry of an archive."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return member


def template(store: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run `sandbox_local template` on a store; returns what it wrote.

    Raises:
        AssertionError: It failed; with what it said.
    """
    done = start_template(store, *arguments, environment=environment)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    return out


def refused(store: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run `sandbox_local template` on a store, and have it fail; returns what it said."""
    done = start_template(store, *arguments, environment=environment)
    _, err = done.communicate(timeout=60)
    assert done.returncode == 1, err
    assert "Traceback" not in err
    return err


def start_template(
    store: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start `sandbox_local template` on a store."""
    command = [sys.executable, "-m", "sandbox_local", "template", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env={**os.environ, "SANDBOX_SYNC_TEMPLATES": str(store), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def snapshot(directory: Path, skip: Callable[[str], bool] = lambda _: False) -> dict[str, tuple[int, ...]]:
    """What lies in a directory, with what would tell of a change."""
    found: dict[str, tuple[int, ...]] = {}
    for path, _, files in os.walk(directory):
        for name in (".", *files):
            full = os.path.normpath(os.path.join(path, name))
            info = os.lstat(full)
            if not skip(full):
                found[full] = (info.st_ino, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns)
    return found


def _add_program(directory: Path, program: str, path: str) -> None:
    needed = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=30, check=False)
    _copy(program, directory / path)
    for word in needed.stdout.split():
        if word.startswith("/"):
            _copy(word, directory / word[1:])


def _copy(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(os.path.realpath(source), target)
