"""Removing builds that no template has any more: files of several owners, in trees of any depth."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

from sandbox_local.templates import confined
from sandbox_local.templates.store import Store, TemplateError


def sweep(store: Store) -> None:
    """Remove what interrupted imports, replaced and deleted templates left, unless sandboxes live from it.

    Raises:
        TemplateError: Some of it can't be removed.
    """
    found = store.leftovers()
    paths = [str(store.path / build_id) for build_id, _ in found]

    def remove(_: object) -> dict[str, Any]:
        for path in paths:
            _remove(path)
        return {}

    try:
        if found:
            confined.run(remove)
    finally:
        for _, lock in found:
            lock.close()


def _remove(top: str) -> None:
    """Remove a directory: those in it are first moved to its top, so no path gets long."""
    waiting = [top]
    new = f"{top}/.{os.urandom(8).hex()}"
    moved = 0
    while waiting:
        path = waiting[-1]
        os.chmod(path, 0o700)
        below = []
        for name in os.listdir(path):
            entry = f"{path}/{name}"
            if stat.S_ISDIR(os.lstat(entry).st_mode):
                below.append(entry)
            else:
                os.unlink(entry)
        if not below:
            os.rmdir(path)
            waiting.pop()
        for directory in below:
            if path == top:
                waiting.append(directory)
            else:
                moved += 1
                waiting.append(f"{new}.{moved}")
                os.rename(directory, waiting[-1])


def main(path: str) -> None:
    """Sweep the store at a path; run by servers as a program of its own."""
    try:
        sweep(Store(Path(path)))
    except TemplateError as error:
        sys.exit(f"files of deleted templates could not be removed: {error}")
