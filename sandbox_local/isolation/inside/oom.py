"""Whom the kernel kills first when a box, or the machine, is out of memory: commands before the agent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from sandbox_local.isolation import syscalls

_COMMANDS = 500
"""Thousandths of the memory in question that a command counts for more than it uses."""


class Score:
    """This process's standing, which its children are born with.

    A child can't set its own, since it belongs to nobody of the box until it executes its program.
    """

    def __init__(self) -> None:
        """Open it; for the first process of a box, before it is in there.

        Raises:
            OSError: There is no /proc.
        """
        # As long as there is nobody in the box who could make use of it.
        syscalls.set_dumpable(True)
        self.fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        syscalls.set_dumpable(False)
        self._own = os.pread(self.fd, 16, 0).strip()
        self._commands = b"%d" % max(_COMMANDS, int(self._own))

    @contextlib.contextmanager
    def of_commands(self) -> Iterator[None]:
        """Give what is forked meanwhile the standing of a command."""
        os.pwrite(self.fd, self._commands, 0)
        try:
            yield
        finally:
            os.pwrite(self.fd, self._own, 0)
