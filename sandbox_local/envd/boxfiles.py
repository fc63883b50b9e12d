"""File operations of a box, without belief in what the box answers.

What leaves here is a dict and, if one was asked for, a descriptor of a regular file or a socket: reading or
writing anything else, such as a pipe that the box made, could block the server for ever.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from sandbox_local.envd import open_files
from sandbox_local.envd.faults import SHORTAGES, rpc_error
from sandbox_local.isolation.base import Box, BoxGone, UnknownUser
from sandbox_local.rpc import Code, Context, RpcError

_T = TypeVar("_T")

_NO_FILE = "the sandbox answered with something that is no file"


async def ask(box: Box, operation: str, **arguments: Any) -> dict[str, Any]:
    """Run an operation that answers without a descriptor; raises what `Box.files` raises."""
    answer, fds = await box.files(operation, **arguments)
    _close(fds)
    return answer


async def open_file(box: Box, operation: str, **arguments: Any) -> tuple[dict[str, Any], int]:
    """Run an operation that opens a file; returns its answer and the descriptor, which belongs to the caller.

    Raises what `Box.files` raises.
    """
    answer, fd = await perhaps_open_file(box, operation, **arguments)
    if fd is None:
        raise OSError(errno.EIO, _NO_FILE)
    return answer, fd


async def perhaps_open_file(box: Box, operation: str, **arguments: Any) -> tuple[dict[str, Any], int | None]:
    """The same for one that opens a file where the answer alone does not tell all."""
    answer, fds = await box.files(operation, **arguments)
    if not fds:
        return answer, None
    if len(fds) == 1 and stat.S_ISREG(os.fstat(fds[0]).st_mode):
        open_files.note(box, fds[0])
        return answer, fds[0]
    _close(fds)
    raise OSError(errno.EIO, _NO_FILE)


async def open_socket(box: Box, operation: str, **arguments: Any) -> socket.socket:
    """Run an operation that opens a socket; it belongs to the caller. Raises what `Box.files` raises."""
    _, fds = await box.files(operation, **arguments)
    if len(fds) == 1 and stat.S_ISSOCK(os.fstat(fds[0]).st_mode):
        return socket.socket(fileno=fds[0])
    _close(fds)
    raise OSError(errno.EIO, "the sandbox answered with something that is no socket")


class RpcFiles:
    """File operations for the user of an RPC, whose failures are its errors."""

    def __init__(self, box: Box, default_user: str) -> None:
        """Make them.

        Args:
            box: Where the files are.
            default_user: Decides paths and ownership for requests that name no user.
        """
        self._box = box
        self._default_user = default_user

    async def do(
        self,
        how: Callable[..., Awaitable[_T]],
        operation: str,
        context: Context,
        codes: Mapping[int, Code],
        **arguments: Any,
    ) -> _T:
        """Run an operation.

        Args:
            how: `ask`, `open_file`, `perhaps_open_file` or `open_socket`.
            operation: Its name.
            context: Of the call.
            codes: What an errno means; one that is not here is INTERNAL.
            **arguments: Of the operation, but for the user.

        Raises:
            RpcError: It failed.
        """
        user = context.user or self._default_user
        try:
            return await how(self._box, operation, user=user, **arguments)
        except (BoxGone, UnknownUser) as error:
            raise rpc_error(error) from None
        except ValueError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
        except OSError as error:
            short = Code.RESOURCE_EXHAUSTED if error.errno in SHORTAGES else Code.INTERNAL
            code = codes.get(error.errno or 0, short)
            raise RpcError(code, error.strerror or str(error)) from None

    async def check_user(self, context: Context) -> None:
        """Refuse a user that the box has not, for calls that have no other use for it.

        Raises:
            RpcError: It has not (UNAUTHENTICATED), or the box has ended (UNAVAILABLE).
        """
        if context.user:
            await self.do(ask, "expand", context, {}, path="")


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
