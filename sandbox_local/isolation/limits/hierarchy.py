"""Where control groups are on this machine, and in which of them this process is.

There are trees of version 1 with a few controllers each, one tree of version 2 with all the others, or both
kinds side by side. Which they are and where they are mounted is told by `/proc/self`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc/self")


class Hierarchy(NamedTuple):
    """A tree of control groups.

    Attributes:
        version: 1 or 2.
        controllers: What its groups can bound.
        top: The highest group that can be reached.
        own: The group that this process is in, `top` or somewhere below it.
    """

    version: int
    controllers: frozenset[str]
    top: Path
    own: Path


def find(proc: Path = PROC) -> list[Hierarchy]:
    """All trees that are mounted and in which this process's group can be reached.

    Args:
        proc: The process's directory.
    """
    groups = _groups(proc)
    found: dict[frozenset[str], Hierarchy] = {}
    for version, names, root, mount in _mounts(proc):
        controllers = (names if version == 1 else frozenset({""})).intersection(groups)
        if not controllers or controllers in found:
            continue
        group = groups[min(controllers)]
        if group.startswith("/..") or root.startswith("/.."):
            continue  # outside of this process's cgroup namespace
        path = os.path.relpath(group, root)
        own = mount if path == "." else mount / path
        if path == ".." or path.startswith("../") or not own.is_dir():
            continue  # the mount shows another part of the tree
        if version == 2:
            found[controllers] = Hierarchy(2, frozenset(_words(mount / "cgroup.controllers")), mount, own)
        else:
            found[controllers] = Hierarchy(1, controllers, mount, own)
    return list(found.values())


def memory_bound(proc: Path = PROC) -> int | None:
    """The least bound of memory on the groups that this process is in, or None."""
    bounds = []
    for tree in find(proc):
        name = {1: "memory.limit_in_bytes", 2: "memory.max"}[tree.version]
        for group in lineage(tree):
            bounds += [int(word) for word in _words(group / name) if word.isdigit()]
    return min(bounds, default=None)


def lineage(tree: Hierarchy) -> list[Path]:
    """This process's group and the groups that it lies in, nearest first."""
    return [
        group for group in (tree.own, *tree.own.parents) if group == tree.top or tree.top in group.parents
    ]


def _groups(proc: Path) -> dict[str, str]:
    """The paths of this process's groups by controller; version 2's is that of ""."""
    groups = {}
    for line in (proc / "cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), path))
    return groups


def _mounts(proc: Path) -> list[tuple[int, frozenset[str], str, Path]]:
    """Version, options, root and place of each mounted tree."""
    mounts = []
    for line in (proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, place = (_unescape(field) for field in before.split()[3:5])
            version = 2 if kind == "cgroup2" else 1
            mounts.append((version, frozenset(options.split(",")), root, Path(place)))
    return mounts


def _unescape(field: str) -> str:
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, letter)
    return field


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
