"""Finding the group below which this process may make groups of its own.

In version 1 that is the process's own group, if its user may write to it. In version 2 a group that hands
controllers on to others may hold no processes (the tree's root excepted), so the process moves into a leaf
first; and where its own group can't be used, as when other programs are in it, one above it may be: the
session of a desktop user lies in groups that belong to that user.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandbox_local.isolation.limits.hierarchy import Hierarchy, lineage

PROCS = "cgroup.procs"
ENTRIES = {1: "tasks", 2: PROCS}
"""The file of a group, by version, to which a process with one thread writes "0" to enter."""

_HANDED_ON = "cgroup.subtree_control"


class Place:
    """A group to make groups in.

    Attributes:
        version: That of the tree.
        path: The group.
        controllers: What groups in it can bound.
    """

    def __init__(self, tree: Hierarchy, path: Path, wanted: frozenset[str], leaf: str) -> None:
        """Make a group ready; check `controllers` for how far that went, and `undo` it if it is of no use.

        Args:
            tree: The tree that it is in.
            path: The group.
            wanted: The controllers that are wanted.
            leaf: The name of the group that this process may be moved into, below its own.
        """
        self.version = tree.version
        self.path = path
        self.cause = ""
        self._leaf = path / leaf
        self._moved = False
        self._enabled: list[str] = []
        self.controllers = tree.controllers & wanted
        if not os.access(path, os.W_OK | os.X_OK) or not _writable(path, tree.version):
            self.controllers = frozenset()
            self.cause = f"this user may make no groups in {path}"
        elif tree.version == 2:
            self.controllers = self._hand_on(tree, wanted)

    def undo(self) -> None:
        """Hand on no more than before, and move this process back."""
        for name in self._enabled:
            _try_write(self.path / _HANDED_ON, f"-{name}")
        if self._moved:
            _try_write(self.path / PROCS, "0")
            try:
                self._leaf.rmdir()
            except OSError:
                pass  # the next start removes it
        self._enabled, self._moved = [], False

    def _hand_on(self, tree: Hierarchy, wanted: frozenset[str]) -> frozenset[str]:
        offered = wanted & set(_read(self.path / "cgroup.controllers"))
        missing = offered - set(_read(self.path / _HANDED_ON))
        for name in sorted(missing):
            if self._enable(name):
                continue
            if self.path == tree.own and not self._moved and self._move():
                self._enable(name)
        handed_on = offered & set(_read(self.path / _HANDED_ON))
        if len(handed_on) < len(wanted):
            lacking = ", ".join(sorted(wanted - handed_on))
            why = "other programs are in it" if offered - handed_on else "it has not got them itself"
            self.cause = f"the group {self.path} can't hand on {lacking}: {why}"
        return frozenset(handed_on)

    def _enable(self, name: str) -> bool:
        done = _try_write(self.path / _HANDED_ON, f"+{name}")
        if done:
            self._enabled.append(name)
        return done

    def _move(self) -> bool:
        try:
            self._leaf.mkdir()
        except OSError:
            return False
        self._moved = _try_write(self._leaf / PROCS, "0")
        if not self._moved:
            self._leaf.rmdir()
        return self._moved


def find(tree: Hierarchy, wanted: frozenset[str], leaf: str) -> Place:
    """The nearest group that has all that is wanted of the tree, or else the one that has most of it."""
    groups = lineage(tree) if tree.version == 2 else [tree.own]
    best = Place(tree, groups[0], wanted, leaf)
    for group in groups[1:]:
        if best.controllers >= wanted:
            break
        other = Place(tree, group, wanted, leaf)
        if len(other.controllers) > len(best.controllers):
            best.undo()
            best = other
        else:
            other.undo()
    return best


def _writable(path: Path, version: int) -> bool:
    files = [PROCS, _HANDED_ON] if version == 2 else [ENTRIES[version]]
    return all(os.access(path / file, os.W_OK) for file in files)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _try_write(path: Path, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
