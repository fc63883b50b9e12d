"""Watching directories: as a stream, or collected until somebody asks."""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from sandbox_sync_rpc import filesystem_pb2 as pb

from sandbox_local.envd.boxfiles import RpcFiles, open_socket
from sandbox_local.envd.entries import entry_info
from sandbox_local.envd.faults import rpc_error
from sandbox_local.envd.process import keepalive_interval
from sandbox_local.isolation.base import Box, BoxGone
from sandbox_local.rpc import Code, Context, RpcError

_MAX_WATCHES = 64  # of one sandbox: each is a process in it
_MAX_LINE = 256 << 10  # bytes of one event; paths and metadata have a few thousand each
_MAX_COLLECTED = 32 << 20  # bytes of events that wait to be fetched
_DEATH_PATIENCE = 0.5  # seconds by which the end of a box may be known later than that of its watcher
_SYNC_PATIENCE = 2.0  # seconds that a fetch waits for the box to tell what has happened up to now

_UNWATCHABLE = {
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENOTDIR: Code.INVALID_ARGUMENT,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENOSPC: Code.RESOURCE_EXHAUSTED,
}
_TYPES = {
    "create": pb.EVENT_TYPE_CREATE,
    "write": pb.EVENT_TYPE_WRITE,
    "remove": pb.EVENT_TYPE_REMOVE,
    "rename": pb.EVENT_TYPE_RENAME,
    "chmod": pb.EVENT_TYPE_CHMOD,
}


class WatchService:
    """The part of the Filesystem service that watches."""

    def __init__(self, box: Box, files: RpcFiles) -> None:
        """Make the service.

        Args:
            box: Where the directories are.
            files: Its files.
        """
        self._box = box
        self._files = files
        self._watches: set[_Watch] = set()
        self._open_count = 0  # with those that are being opened
        self._collectors: dict[str, _Collector] = {}

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """The handlers by the names of their methods."""
        return {
            "WatchDir": self.watch_dir,
            "CreateWatcher": self.create_watcher,
            "GetWatcherEvents": self.get_watcher_events,
            "RemoveWatcher": self.remove_watcher,
        }

    def close(self) -> None:
        """End every watch."""
        for watch in list(self._watches):
            watch.close()

    async def watch_dir(
        self, request: pb.WatchDirRequest, context: Context
    ) -> AsyncGenerator[pb.WatchDirResponse, None]:
        """The events of a directory as they happen; there is no end to them."""
        patience = keepalive_interval(context.headers.get("keepalive-ping-interval"))
        watch = await self._open(request, context)
        try:
            yield pb.WatchDirResponse(start=pb.WatchDirResponse.StartEvent())
            while True:
                try:
                    event = await asyncio.wait_for(watch.next(), patience)
                except asyncio.TimeoutError:
                    yield pb.WatchDirResponse(keepalive=pb.WatchDirResponse.KeepAlive())
                else:
                    if event is not None:
                        yield pb.WatchDirResponse(filesystem=event)
        finally:
            watch.close()

    async def create_watcher(
        self, request: pb.CreateWatcherRequest, context: Context
    ) -> pb.CreateWatcherResponse:
        """Collect the events of a directory from now on; no connection has to stay open for it."""
        collector = _Collector(await self._open(request, context))
        watcher_id = "w" + secrets.token_hex(10)
        self._collectors[watcher_id] = collector
        return pb.CreateWatcherResponse(watcher_id=watcher_id)

    async def get_watcher_events(
        self, request: pb.GetWatcherEventsRequest, context: Context
    ) -> pb.GetWatcherEventsResponse:
        """All that has happened up to now and was not fetched before."""
        await self._files.check_user(context)
        return pb.GetWatcherEventsResponse(events=await self._find(request.watcher_id).fetch())

    async def remove_watcher(
        self, request: pb.RemoveWatcherRequest, context: Context
    ) -> pb.RemoveWatcherResponse:
        """Collect no more."""
        await self._files.check_user(context)
        self._find(request.watcher_id).close()
        del self._collectors[request.watcher_id]
        return pb.RemoveWatcherResponse()

    def _find(self, watcher_id: str) -> _Collector:
        try:
            return self._collectors[watcher_id]
        except KeyError:
            raise RpcError(Code.NOT_FOUND, f"watcher with id {watcher_id} not found") from None

    async def _open(self, request: pb.WatchDirRequest | pb.CreateWatcherRequest, context: Context) -> _Watch:
        if self._open_count >= _MAX_WATCHES:
            message = f"{_MAX_WATCHES} directories are being watched already: stop watching another first"
            raise RpcError(Code.RESOURCE_EXHAUSTED, message)
        self._open_count += 1
        try:
            wanted = {
                "path": request.path,
                "recursive": request.recursive,
                "include_entry": request.include_entry,
            }
            sock = await self._files.do(open_socket, "watch", context, _UNWATCHABLE, **wanted)
            try:
                streams = await asyncio.open_unix_connection(sock=sock, limit=_MAX_LINE)
            except BaseException:
                sock.close()
                raise
        except BaseException:
            self._open_count -= 1
            raise
        watch = _Watch(*streams, self._box.ended, self._closed)
        self._watches.add(watch)
        return watch

    def _closed(self, watch: _Watch) -> None:
        self._open_count -= 1
        self._watches.remove(watch)


class _Watch:
    """The events that a watcher in the box tells of."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        box_ended: asyncio.Future[str],
        on_close: Callable[[_Watch], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._box_ended = box_ended
        self._on_close: Callable[[_Watch], None] | None = on_close

    async def next(self) -> pb.FilesystemEvent | None:
        """The next event; None where all is told that happened before a `sync`.

        Raises:
            RpcError: There will be no more.
        """
        try:
            line = await self._reader.readline()
            if not line:
                raise ConnectionError
            told = dict(json.loads(line))
            if "synced" in told:
                return None
            if "name" in told:
                entry = told.get("entry")
                kind = _TYPES[told["type"]]
                return pb.FilesystemEvent(name=told["name"], type=kind, entry=entry and entry_info(entry))
        except ConnectionError:
            raise await self._why_ended() from None
        except (ValueError, TypeError, LookupError, RecursionError):
            raise RpcError(Code.INTERNAL, "the watcher in the sandbox told nonsense") from None
        raise RpcError(Code.INTERNAL, str(told.get("error", "the watcher in the sandbox failed")))

    async def _why_ended(self) -> RpcError:
        """Why there is nothing more to read: the box died with its watcher, or it killed that."""
        await asyncio.wait([self._box_ended], timeout=_DEATH_PATIENCE)
        if self._box_ended.done():
            return rpc_error(BoxGone())
        return RpcError(Code.INTERNAL, "the watcher in the sandbox was killed")

    def sync(self) -> None:
        """Ask to be told when all is told that has happened up to now."""
        self._writer.write(b"s")

    def close(self) -> None:
        """Stop watching; again is harmless."""
        if self._on_close is not None:
            self._writer.transport.abort()
            self._on_close(self)
            self._on_close = None


class _Collector:
    """Keeps the events of a watch until they are fetched."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._events: list[pb.FilesystemEvent] = []
        self._size = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._error: RpcError | None = None
        self._task = asyncio.create_task(self._collect())

    async def fetch(self) -> list[pb.FilesystemEvent]:
        """What happened up to now and was not fetched before.

        Raises:
            RpcError: Nothing is left, and there will be no more.
        """
        if not self._task.done():
            synced = asyncio.get_running_loop().create_future()
            self._waiting.append(synced)
            self._watch.sync()
            await asyncio.wait(
                [synced, self._task], timeout=_SYNC_PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
        if self._error is not None and not self._events:
            raise self._error
        events, self._events, self._size = self._events, [], 0
        return events

    def close(self) -> None:
        """Collect no more."""
        self._task.cancel()
        self._watch.close()

    async def _collect(self) -> None:
        try:
            while self._size < _MAX_COLLECTED:
                event = await self._watch.next()
                if event is not None:
                    self._events.append(event)
                    self._size += event.ByteSize()
                elif self._waiting:
                    waiting = self._waiting.popleft()
                    if not waiting.done():
                        waiting.set_result(None)
            self._error = RpcError(
                Code.INTERNAL, "events were lost: too many happened before they were fetched"
            )
        except RpcError as error:
            self._error = error
        finally:
            self._watch.close()
