"""The Filesystem service of one sandbox, on top of the file operations of its box."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from sandbox_sync_rpc import filesystem_pb2 as pb

from sandbox_local.envd.boxfiles import ask, open_file
from sandbox_local.envd.faults import rpc_error
from sandbox_local.isolation.base import Box, BoxGone, UnknownUser
from sandbox_local.rpc import Code, Context, RpcError

_MAX_LISTING = 80 << 20  # bytes taken of a listing; the worker bounds it too, but nobody trusts it
_TYPES = {"file": pb.FILE_TYPE_FILE, "dir": pb.FILE_TYPE_DIRECTORY}
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799  # the years 1 to 9999, which Timestamp can tell

_T = TypeVar("_T")

_MISSING = {errno.ENOENT: Code.NOT_FOUND}
_EXISTING = {errno.EEXIST: Code.ALREADY_EXISTS}
_UNLISTABLE = {
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENOTDIR: Code.INVALID_ARGUMENT,
    errno.ELOOP: Code.FAILED_PRECONDITION,
    errno.EOVERFLOW: Code.RESOURCE_EXHAUSTED,
}


class FilesystemService:
    """Inspects and changes the files of a box. Permissions of the user are not applied, as in envd."""

    def __init__(self, box: Box, default_user: str) -> None:
        """Make the service.

        Args:
            box: Where the files are.
            default_user: Decides paths and ownership for requests that name no user.
        """
        self._box = box
        self._default_user = default_user

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """The handlers by the names of their methods."""
        return {
            "Stat": self.stat,
            "MakeDir": self.make_dir,
            "Move": self.move,
            "ListDir": self.list_dir,
            "Remove": self.remove,
            "WatchDir": _unimplemented,
            "CreateWatcher": _unimplemented,
            "GetWatcherEvents": _unimplemented,
            "RemoveWatcher": _unimplemented,
        }

    async def stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:
        """The entry of a path itself."""
        answer = await self._do(ask, "stat", context, _MISSING, path=request.path)
        return pb.StatResponse(entry=entry_info(answer["entry"]))

    async def make_dir(self, request: pb.MakeDirRequest, context: Context) -> pb.MakeDirResponse:
        """Make a directory and those above it."""
        answer = await self._do(ask, "make_dir", context, _EXISTING, path=request.path)
        return pb.MakeDirResponse(entry=entry_info(answer["entry"]))

    async def move(self, request: pb.MoveRequest, context: Context) -> pb.MoveResponse:
        """Rename an entry."""
        paths = {"source": request.source, "destination": request.destination}
        answer = await self._do(ask, "move", context, _MISSING, **paths)
        return pb.MoveResponse(entry=entry_info(answer["entry"]))

    async def list_dir(self, request: pb.ListDirRequest, context: Context) -> pb.ListDirResponse:
        """The entries below a directory."""
        wanted = {"path": request.path, "depth": request.depth}
        _, listing = await self._do(open_file, "list_dir", context, _UNLISTABLE, **wanted)
        return await asyncio.to_thread(_read_listing, listing)

    async def remove(self, request: pb.RemoveRequest, context: Context) -> pb.RemoveResponse:
        """Remove an entry and all below it."""
        await self._do(ask, "remove", context, {}, path=request.path)
        return pb.RemoveResponse()

    async def _do(
        self,
        how: Callable[..., Awaitable[_T]],
        operation: str,
        context: Context,
        codes: Mapping[int, Code],
        **arguments: Any,
    ) -> _T:
        """Run a file operation by `ask` or `open_file`; an errno that `codes` does not name is INTERNAL."""
        user = context.user or self._default_user
        try:
            return await how(self._box, operation, user=user, **arguments)
        except (BoxGone, UnknownUser) as error:
            raise rpc_error(error) from None
        except ValueError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
        except OSError as error:
            code = codes.get(error.errno or 0, Code.INTERNAL)
            raise RpcError(code, error.strerror or str(error)) from None


def entry_info(entry: Mapping[str, Any]) -> pb.EntryInfo:
    """The message that tells what the box told of a file."""
    info = pb.EntryInfo(
        name=entry["name"],
        type=_TYPES.get(entry["type"], pb.FILE_TYPE_UNSPECIFIED),
        path=entry["path"],
        size=entry["size"],
        mode=entry["mode"],
        permissions=entry["permissions"],
        owner=entry["owner"],
        group=entry["group"],
        symlink_target=entry["symlink_target"],
        metadata=entry["metadata"],
        is_symlink=entry["is_symlink"],
    )
    seconds, info.modified_time.nanos = divmod(entry["mtime_ns"], 1_000_000_000)
    info.modified_time.seconds = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    return info


def _read_listing(fd: int) -> pb.ListDirResponse:
    """Read what `list_dir` of the file worker wrote, and close it."""
    with open(fd, "rb") as listing:
        if os.fstat(fd).st_size > _MAX_LISTING:
            raise RpcError(Code.INTERNAL, "the sandbox gave a listing without end")
        listing.seek(0)
        return pb.ListDirResponse(entries=[entry_info(json.loads(line)) for line in listing])


def _unimplemented(request: Any, context: Context) -> Any:
    raise RpcError(Code.UNIMPLEMENTED, "this server does not watch directories yet")
