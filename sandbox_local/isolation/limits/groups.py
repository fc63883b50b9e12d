"""The control groups of one server: one for each box and tree, inside of one that tells whose they are.

A box's first process is handed descriptors by which it enters its groups, see `making.entering`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox_local.isolation.base import Limits, Usage
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.limits import delegation, hierarchy, leftovers, settings, usage
from sandbox_local.isolation.limits.delegation import Place
from sandbox_local.isolation.limits.enforcement import Enforcement, describe

log = logging.getLogger(__name__)

_EMPTYING = 2.0
"""Seconds within which the kernel lets go of the group of a box that has ended."""

_LEFT_BY_KILLED = 2.0
"""Seconds for the boxes of a server that was killed just before this one started."""


class Group:
    """The groups of one box."""

    def __init__(self, directories: dict[str, Path], versions: dict[str, int]) -> None:
        self._directories = directories
        self._versions = versions

    @contextlib.contextmanager
    def entries(self) -> Iterator[list[int]]:
        """Descriptors by which the box's first process enters them: the directory of a group of version 2,
        and the lists of tasks of those of version 1.

        Raises:
            OSError: This process may open no more.
        """
        with contextlib.ExitStack() as stack:
            fds = []
            versions = {group: self._versions[controller] for controller, group in self._directories.items()}
            for group, version in versions.items():
                if version == 2:
                    fds.append(os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                else:
                    fds.append(os.open(group / delegation.ENTRIES[1], os.O_WRONLY | os.O_CLOEXEC))
                stack.callback(os.close, fds[-1])
            yield fds

    def usage(self) -> Usage:
        """What the box uses, as far as its groups say."""
        return usage.read(self._directories, self._versions)

    async def remove(self) -> None:
        """Remove the groups of a box that has ended."""
        deadline = time.monotonic() + _EMPTYING
        pause = 0.001
        while busy := [path for path in set(self._directories.values()) if not _remove(path)]:
            if time.monotonic() > deadline:
                log.warning("the control groups of an ended sandbox are still in use: %s", busy)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)


class Groups:
    """Makes them.

    Attributes:
        enforcement: What is bounded and what is not.
    """

    def __init__(self) -> None:
        """Find out what can be had, and get it ready.

        This process may be moved into another group; so there should be one of these at a time.
        """
        name = leftovers.own_name()
        self._places: dict[str, Place] = {}
        self._parents: dict[Path, Place] = {}
        self._tops: set[Path] = set()
        causes: dict[str, str] = {}
        trees = _trees()
        for tree in trees:
            wanted = tree.controllers & set(settings.CONTROLLERS)
            if not wanted:
                continue
            self._tops.add(tree.top)
            place = delegation.find(tree, wanted, f"{name}.server")
            directory = place.path / name
            usable = self._open(place, directory)
            self._places.update(dict.fromkeys(usable, place))
            causes.update(
                dict.fromkeys(wanted - usable, place.cause or f"groups can't be made in {place.path}")
            )
        for controller in settings.CONTROLLERS:
            if controller not in self._places:
                causes.setdefault(controller, "this machine offers no control groups for it")
        self._name = name
        self._numbers = itertools.count()
        self.versions = {
            controller: self._places[controller].version
            for controller in settings.CONTROLLERS
            if controller in self._places
        }
        self.enforcement: Enforcement = describe(
            self.versions, {name: causes[name] for name in settings.CONTROLLERS if name not in self._places}
        )

    def make(self, limits: Limits) -> Group:
        """Make the groups of a box.

        Args:
            limits: What it may use.

        Raises:
            IsolationError: A bound that was asked for can't be had.
            OSError: The kernel gives no more groups.
        """
        self.check(limits)
        directories: dict[str, Path] = {}
        number = str(next(self._numbers))  # not the box's name, which is free before its groups are gone
        try:
            for controller, place in self._places.items():
                directory = place.path / self._name / number
                if directory not in directories.values():
                    directory.mkdir()
                directories[controller] = directory
                for setting in settings.of_box(controller, place.version, limits):
                    _apply(directory, setting)
        except BaseException:
            for directory in set(directories.values()):
                _remove(directory)
            raise
        return Group(directories, self.versions)

    def check(self, limits: Limits) -> None:
        """See whether limits can be had.

        Raises:
            IsolationError: One that nothing here can stand for can't.
        """
        shortfall = self.enforcement.shortfall("cpu")
        if limits.cpus is not None and shortfall is not None:
            raise IsolationError(
                f"processors can't be bounded on this machine: {shortfall.cause}. Remedy: "
                f"{shortfall.remedy}, or leave out the bound."
            )

    async def remove_leftovers(self) -> None:
        """Remove what servers left behind that were killed, once their boxes have ended, too."""
        deadline = time.monotonic() + _LEFT_BY_KILLED
        while await asyncio.to_thread(lambda: sum(map(leftovers.remove, self._tops))):
            if time.monotonic() > deadline:
                return  # for the next start
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Remove all groups, those of boxes included; to be called when no box lives."""
        for directory, place in self._parents.items():
            if not leftovers.remove_tree(directory):
                log.warning("the control group %s is still in use", directory)
            place.undo()
        self._parents.clear()
        self._places.clear()

    def _open(self, place: Place, directory: Path) -> frozenset[str]:
        """Make the group that is to hold those of all boxes; returns what it can bound."""
        if not place.controllers:
            place.undo()
            return frozenset()
        try:
            directory.mkdir()
            self._parents[directory] = place
            handed_on = directory / "cgroup.subtree_control"
            for controller in sorted(place.controllers):
                if place.version == 2:
                    handed_on.write_text(f"+{controller}")
                for setting in settings.of_all(controller, place.version):
                    _apply(directory, setting)
            _try_entering(directory / "trial", place.version)
        except OSError as error:
            place.cause = f"{directory}: {error.strerror}"
            self._parents.pop(directory, None)
            leftovers.remove_tree(directory)
            place.undo()
            return frozenset()
        return place.controllers


def _trees() -> list[hierarchy.Hierarchy]:
    try:
        return hierarchy.find()
    except OSError:
        return []  # no /proc


def _try_entering(group: Path, version: int) -> None:
    """Have a process enter a new group, as boxes will.

    Raises:
        PermissionError: It may not.
    """
    group.mkdir()
    entry = group / delegation.ENTRIES[version]
    done = subprocess.run(["/bin/sh", "-c", 'echo 0 > "$1"', "sh", entry], capture_output=True, check=False)
    _remove(group)
    if done.returncode:
        raise PermissionError(errno.EPERM, "the kernel lets no process enter groups in it")


def _apply(directory: Path, setting: settings.Setting) -> None:
    try:
        (directory / setting.file).write_text(setting.value, encoding="ascii")
    except OSError:
        if setting.required:
            raise


def _remove(directory: Path) -> bool:
    """Remove a group; False if it is in use."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            log.warning("the control group %s can't be removed: %s", directory, error.strerror)
        return error.errno != errno.EBUSY
    return True
