"""The way of a box's first process into its control groups, whose descriptors came with the request for it.

Into a group of version 2, given by its directory, it is born. Going there later works, too, and is what is
left where a container's filter forbids it, but takes several milliseconds, in which the kernel waits until
nothing on the machine is in the middle of a fork. Into groups of version 1, given by their lists of tasks, it
goes at once.
"""

from __future__ import annotations

import os
import stat

from sandbox_local.isolation import syscalls


def fork(entries: list[int]) -> int:
    """Fork; returns as `os.fork` does. The child is to call `enter` with what is left of the entries.

    Raises:
        OSError: The machine has no more processes to give.
    """
    for fd in filter(_is_directory, entries):
        try:
            pid = syscalls.fork_into(fd)
        except OSError:
            break
        if pid == 0:
            os.close(fd)
            entries.remove(fd)
        return pid
    return os.fork()


def enter(entries: list[int]) -> None:
    """Move this process, which has one thread, into its groups, and close their descriptors.

    Raises:
        OSError: The kernel refused.
    """
    for fd in entries:
        if _is_directory(fd):
            processes = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
            os.write(processes, b"0")
            os.close(processes)
        else:
            os.write(fd, b"0")
        os.close(fd)


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)
