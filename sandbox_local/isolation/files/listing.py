"""What is below a directory: at once where that is little, otherwise as long as it takes."""

from __future__ import annotations

import errno
import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any

from sandbox_local.isolation import users
from sandbox_local.isolation.files.entry import Names, listed
from sandbox_local.isolation.files.paths import expand
from sandbox_local.isolation.files.trees import walk

_MAX_LISTING = 64 << 20  # bytes of the longest listing
_LINE = 256  # entries of a line

_FEW = 12 << 10  # bytes that the names of a small listing may take, as `walk` counts: about 80 of them
_SHORT = 256 << 10  # bytes of all that is told of them, beside what is of the same length for all


def list_dir(user: str, path: str, depth: int) -> tuple[dict[str, Any], list[int]]:
    """The entries below a directory, as a descriptor to read JSON from: a line is a list of entries.

    Entries that vanish meanwhile are left out, and so are those whose path is too long for the kernel.
    """
    listing = os.memfd_create("listing", os.MFD_CLOEXEC)
    try:
        size = 0
        with open(listing, "wb", closefd=False) as lines:
            for line in _lines(_entries(user, path, depth, _MAX_LISTING)):
                size += len(line)
                if size > _MAX_LISTING:
                    raise OSError(errno.EOVERFLOW, "too many entries to list at once")
                lines.write(line)
    except BaseException:
        os.close(listing)
        raise
    return {"size": size}, [listing]


def list_small_dir(user: str, path: str, depth: int) -> tuple[dict[str, Any], list[int]] | None:
    """The same as a list in the answer; None when there is more than is listed in a moment."""
    found = []
    left = _SHORT
    try:
        for told in _entries(user, path, depth, _FEW):
            left -= len(told["path"]) + len(told.get("symlink_target", "")) + _length(told.get("metadata"))
            if left < 0:
                return None
            found.append(told)
    except OSError as error:
        if error.errno == errno.EOVERFLOW:
            return None
        raise
    return {"entries": found}, []


def _entries(user: str, path: str, depth: int, budget: int) -> Iterator[dict[str, Any]]:
    viewer = users.find(user)
    names = Names(viewer)
    root = posixpath.normpath(expand(path, viewer))
    for found, name in walk(root, max(depth, 1), budget):
        try:
            yield listed(found, name, names)
        except OSError:
            continue


def _lines(entries: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    line = []
    for told in entries:
        line.append(told)
        if len(line) == _LINE:
            yield json.dumps(line).encode() + b"\n"
            line = []
    if line:
        yield json.dumps(line).encode() + b"\n"


def _length(metadata: dict[str, str] | None) -> int:
    return sum(len(key) + len(value) for key, value in metadata.items()) if metadata else 0
