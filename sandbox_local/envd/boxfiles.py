"""File operations of a box, without belief in what the box answers.

What leaves here is a dict and, if one was asked for, a descriptor of a regular file: reading or writing
anything else, such as a pipe that the box made, could block the server for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from sandbox_local.isolation.base import Box


async def ask(box: Box, operation: str, **arguments: Any) -> dict[str, Any]:
    """Run an operation that answers without a descriptor; raises what `Box.files` raises."""
    answer, fds = await box.files(operation, **arguments)
    _close(fds)
    return answer


async def open_file(box: Box, operation: str, **arguments: Any) -> tuple[dict[str, Any], int]:
    """Run an operation that opens a file; returns its answer and the descriptor, which belongs to the caller.

    Raises what `Box.files` raises.
    """
    answer, fds = await box.files(operation, **arguments)
    if len(fds) == 1 and stat.S_ISREG(os.fstat(fds[0]).st_mode):
        return answer, fds[0]
    _close(fds)
    raise OSError(errno.EIO, "the sandbox answered with something that is no file")


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
