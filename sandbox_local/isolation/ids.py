"""Which user and group ids a box has, seen from outside, and the user namespaces that make them so."""

from __future__ import annotations

import errno
import os
import resource
import signal
from typing import NamedTuple

from sandbox_local.isolation import syscalls

_RANGE = 1 << 16
_UNUSED = range(0x70000000, 0x80000000)
"""Ids that by convention no user, container manager or subordinate range takes."""

_PROCESSES = 8192
"""Of a namespace that is not for a box."""

_FEWEST = 2000
"""Below this a range is of no use: system users and "user" would not fit."""


class Ids(NamedTuple):
    """A box's id n is id `base + n` outside, for n below `size`.

    With a size of 1 all users of the box are one and the same outside.
    """

    base: int
    size: int

    def outer(self, inner: int) -> int:
        """The id outside of an id of the box; of one that can't be told apart, the box's root."""
        return self.base + (inner if inner < self.size else 0)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Give a path, or a link itself, to a user and a group of the box."""
        os.chown(path, self.outer(uid), self.outer(gid), follow_symlinks=False)


class Namespace(NamedTuple):
    """A user namespace for one box at a time.

    Attributes:
        fd: Stands for it.
        ids: Its ids.
        processes: How many processes all its users may have together. The kernel counts them for the owner of
            the namespace, so this holds where that is an id of the box.
    """

    fd: int
    ids: Ids
    processes: int


class Namespaces:
    """User namespaces for boxes, each with a range of ids of its own for as long as there are enough ids.

    Kept for the next box when a box has ended: making one takes longer than the rest of a box.
    """

    def __init__(self) -> None:
        self._free: list[Namespace] = []
        self._made = 0
        self._ranges = _ranges()

    def take(self, processes: int, ids: Ids | None = None) -> Namespace:
        """A user namespace that no living box has.

        Args:
            processes: Bound of the processes of all its users together.
            ids: The ids that it is to have, if that matters.

        Raises:
            OSError: The kernel gives no more.
        """
        for number in reversed(range(len(self._free))):
            free = self._free[number]
            if free.processes == processes and ids in (None, free.ids):
                return self._free.pop(number)
        if ids is None:
            ids = self._ranges[self._made % len(self._ranges)]
            self._made += 1
        return Namespace(make_namespace(ids, processes), ids, processes)

    def give_back(self, namespace: Namespace) -> None:
        """Take back the namespace of a box that is dead to its last process."""
        self._free.append(namespace)


def kept_ids() -> Ids:
    """The ids by which templates of this user are kept: as they are where any can be had, since mounts are
    id-mapped there; else those of a box, since they can't be."""
    return Ids(0, _RANGE) if _has_unused(_mapped()) else _ranges()[0]


def _has_unused(mapped: range) -> bool:
    return _UNUSED.start >= mapped.start and _UNUSED.stop <= mapped.stop


def _ranges() -> list[Ids]:
    mapped = _mapped()
    if _has_unused(mapped):
        found = [Ids(base, _RANGE) for base in _UNUSED[::_RANGE]]
        # Servers that know nothing of each other should not all begin with the same.
        first = int.from_bytes(os.urandom(2), "big") % len(found)
        return found[first:] + found[:first]
    if len(mapped) >= _RANGE:
        return [Ids(base, _RANGE) for base in mapped[: len(mapped) // _RANGE * _RANGE : _RANGE]]
    if len(mapped) >= _FEWEST:
        return [Ids(mapped.start, len(mapped))]
    return [Ids(0, 1)]


def _mapped() -> range:
    """The longest run of ids that exist in this user namespace both for users and for groups, 0 excepted."""
    longest = range(0)
    for users in _extents("/proc/self/uid_map"):
        for groups in _extents("/proc/self/gid_map"):
            both = range(max(users.start, groups.start, 1), min(users.stop, groups.stop))
            longest = max(longest, both, key=len)
    return longest


def _extents(path: str) -> list[range]:
    with open(path, encoding="ascii") as lines:
        rows = [[int(field) for field in line.split()] for line in lines]
    return [range(inside, inside + count) for inside, _, count in rows]


def make_namespace(ids: Ids, processes: int = _PROCESSES) -> int:
    """A user namespace with that mapping. It needs a process to come into being, but not to stay."""
    told, tell = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(told)
        os.close(tell)
        raise
    if pid == 0:
        try:
            if ids.base:
                # What the kernel counts of a namespace counts for its owner, too: not for the host's root.
                syscalls.change_user(ids.base)
            hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            bound = processes if hard == resource.RLIM_INFINITY else min(processes, hard)
            resource.setrlimit(resource.RLIMIT_NPROC, (bound, bound))
            syscalls.set_dumpable(True)  # or its maps could not be written from here
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(tell, b"0")
            signal.pause()
        except OSError as error:
            os.write(tell, b"%d" % (error.errno or 0))
        finally:
            os._exit(1)
    try:
        os.close(tell)
        if number := int(os.read(told, 16) or errno.EAGAIN):
            raise OSError(number, f"unshare of a user namespace: {os.strerror(number)}")
        for kind in ("uid", "gid"):
            with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as map_file:
                map_file.write(f"0 {ids.base} {ids.size}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(told)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
