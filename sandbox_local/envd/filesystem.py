"""The Filesystem service of one sandbox, on top of the file operations of its box."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

from sandbox_sync_rpc import filesystem_pb2 as pb

from sandbox_local.envd.boxfiles import RpcFiles, ask, perhaps_open_file
from sandbox_local.envd.entries import entry_info, fields
from sandbox_local.rpc import Code, Context, RpcError
from sandbox_local.threads import run_to_end

_MAX_LISTING = 80 << 20  # bytes taken of a listing; the worker bounds it too, but nobody trusts it

_MAX_SMALL_LISTING = 1000  # entries of one that comes without a file
_WITHOUT_END = "the sandbox gave a listing without end"

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

    def __init__(self, files: RpcFiles) -> None:
        self._files = files

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """The handlers by the names of their methods."""
        return {
            "Stat": self.stat,
            "MakeDir": self.make_dir,
            "Move": self.move,
            "ListDir": self.list_dir,
            "Remove": self.remove,
        }

    async def stat(self, request: pb.StatRequest, context: Context) -> pb.StatResponse:
        """The entry of a path itself."""
        answer = await self._files.do(ask, "stat", context, _MISSING, path=request.path)
        return pb.StatResponse(entry=entry_info(answer["entry"]))

    async def make_dir(self, request: pb.MakeDirRequest, context: Context) -> pb.MakeDirResponse:
        """Make a directory and those above it."""
        answer = await self._files.do(ask, "make_dir", context, _EXISTING, path=request.path)
        return pb.MakeDirResponse(entry=entry_info(answer["entry"]))

    async def move(self, request: pb.MoveRequest, context: Context) -> pb.MoveResponse:
        """Rename an entry."""
        paths = {"source": request.source, "destination": request.destination}
        answer = await self._files.do(ask, "move", context, _MISSING, **paths)
        return pb.MoveResponse(entry=entry_info(answer["entry"]))

    async def list_dir(self, request: pb.ListDirRequest, context: Context) -> pb.ListDirResponse:
        """The entries below a directory."""
        wanted = {"path": request.path, "depth": request.depth}
        told, listing = await self._files.do(perhaps_open_file, "list_dir", context, _UNLISTABLE, **wanted)
        if listing is not None:
            return await run_to_end(_read_listing, listing)
        if len(told["entries"]) > _MAX_SMALL_LISTING:
            raise RpcError(Code.INTERNAL, _WITHOUT_END)
        return pb.ListDirResponse(entries=map(fields, told["entries"]))

    async def remove(self, request: pb.RemoveRequest, context: Context) -> pb.RemoveResponse:
        """Remove an entry and all below it."""
        await self._files.do(ask, "remove", context, {}, path=request.path)
        return pb.RemoveResponse()


def _read_listing(fd: int) -> pb.ListDirResponse:
    """Read what `list_dir` of the file worker wrote, and close it."""
    with open(fd, "rb") as listing:
        if os.fstat(fd).st_size > _MAX_LISTING:
            raise RpcError(Code.INTERNAL, _WITHOUT_END)
        listing.seek(0)
        answer = pb.ListDirResponse()
        for line in listing:
            answer.MergeFrom(pb.ListDirResponse(entries=map(fields, json.loads(line))))
        return answer
