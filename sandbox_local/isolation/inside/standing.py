"""Who comes first when a box, or the machine, is short of something: the agent before commands.

Short of memory, the kernel kills commands first. Short of processors, it lets the agent and its file worker
go before them, so that the server can still look into a box whose commands are all at work, and end them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from sandbox_local.isolation import syscalls

_COMMANDS = 500
"""Thousandths of the memory in question that a command counts for more than it uses."""

_AHEAD = 10
"""Levels of niceness by which the agent is before commands: it gets about nine times a command's share."""


class Standing:
    """This process's standing, which its children are born with."""

    def __init__(self) -> None:
        """Take it; for the first process of a box, before it is in there.

        Raises:
            OSError: There is no /proc.
        """
        # As long as there is nobody in the box who could make use of it.
        syscalls.set_dumpable(True)
        self.fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        syscalls.set_dumpable(False)
        self._own = os.pread(self.fd, 16, 0).strip()
        self._commands = b"%d" % max(_COMMANDS, int(self._own))
        self._niceness = os.getpriority(os.PRIO_PROCESS, 0)
        with contextlib.suppress(PermissionError):  # only root may, and without it all are equals
            os.setpriority(os.PRIO_PROCESS, 0, self._niceness - _AHEAD)

    @contextlib.contextmanager
    def of_commands(self) -> Iterator[None]:
        """Let what is forked meanwhile be killed as a command is.

        A child can't see to that itself, since it belongs to nobody of the box until it executes its program.
        """
        os.pwrite(self.fd, self._commands, 0)
        try:
            yield
        finally:
            os.pwrite(self.fd, self._own, 0)

    def fall_in(self) -> None:
        """Be no more urgent than commands are, for good; in a child that becomes one."""
        os.setpriority(os.PRIO_PROCESS, 0, self._niceness)
