"""Marks on the processes of a command that these can't get rid of.

Each command is started in a cgroup namespace of its own, which its descendants inherit. None can leave it,
since the filter forbids the system calls; so sessions, daemons and orphans keep the mark.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from sandbox_local.isolation import syscalls


class Tag(NamedTuple):
    """A mark.

    Attributes:
        fd: A descriptor of the namespace; while one is open, no other namespace gets the same name.
        name: What all marked processes, and only they, have in common.
    """

    fd: int
    name: str

    def put_on(self) -> None:
        """Mark this process, and what it forks from now on."""
        syscalls.setns(self.fd, syscalls.CLONE_NEWCGROUP)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def new() -> Tag:
    """A mark that nothing has but this process, until it gets another.

    Raises:
        OSError: The box may have no more of them.
    """
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    return of(os.getpid())


def of(pid: int) -> Tag:
    """The mark of a process.

    Raises:
        OSError: It has ended.
    """
    fd = os.open(f"/proc/{pid}/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    return Tag(fd, os.readlink(f"/proc/self/fd/{fd}"))


def processes() -> Iterator[int]:
    """All processes of the box but this."""
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and (pid := int(name)) != own:
            yield pid


def names(pid: int) -> list[str]:
    """The names of the marks of a process; none if it has ended."""
    try:
        return [os.readlink(f"/proc/{pid}/ns/cgroup")]
    except OSError:
        pass
    found = []  # its first thread may have ended before the others
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found.append(os.readlink(f"/proc/{pid}/task/{thread}/ns/cgroup"))
    except OSError:
        pass
    return found
