"""The file by which other processes find a running server.

The server holds a lock on the file's inode for as long as it runs, so a file whose inode nobody locks was
left by a server that was killed. Only whoever holds that lock may remove the file, and a new one is linked,
never renamed, into place: of two servers that start at once, one sees the other.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


class StateFileHeld(Exception):
    """Another server that runs has this state file."""


class StateFile:
    """A state file that this process holds; `write` makes one.

    Args:
        path: Where it is.
        descriptor: Its inode, open and locked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def write(cls, path: Path, state: Mapping[str, object]) -> StateFile:
        """Put the file in place, complete at once, readable by this user alone.

        Raises:
            StateFileHeld: Another server that runs has it.
            OSError: It can't be written.
        """
        # mkstemp makes it 0600 and close-on-exec.
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise OSError(error.errno, f"can't write the state file {path}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _write(descriptor, path, json.dumps(state).encode() + b"\n")
            while True:
                try:
                    os.link(name, path)
                    return cls(path, descriptor)
                except FileExistsError:
                    _remove_if_abandoned(path)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            os.unlink(name)

    def remove(self) -> None:
        """Take the file away and let go of it."""
        if _is_at(self._descriptor, self._path):
            os.unlink(self._path)
        os.close(self._descriptor)


def _write(descriptor: int, path: Path, content: bytes) -> None:
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError as error:
        raise OSError(error.errno, f"can't write the state file {path}: {error.strerror}") from None


def _remove_if_abandoned(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, path):
            os.unlink(path)
    except BlockingIOError:
        raise StateFileHeld(f"another server runs and has {path}; use that one, or stop it first") from None
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
