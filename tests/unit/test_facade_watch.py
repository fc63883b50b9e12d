"""Watching directories, against services that tell what a test says."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import pytest
from sandbox_sync_rpc import filesystem_pb2 as pb
from sandbox_sync_rpc import services

from sandbox_local.rpc import Code, Context, Rpc, RpcError
from sandbox_sync import (
    ConnectionException,
    EventsLostException,
    FilesystemEvent,
    FilesystemEventType,
    FileType,
    RequestTimeoutException,
    Sandbox,
    SandboxException,
)
from sandbox_sync.entries import entry_info
from sandbox_sync.watch import MOST_EVENTS
from tests.unit.facade_service import sandbox, until

Script = Callable[[], AsyncIterator[pb.WatchDirResponse]]

both = pytest.mark.parametrize("transport", ["connect", "grpc"])

START = pb.WatchDirResponse(start=pb.WatchDirResponse.StartEvent())
KEEPALIVE = pb.WatchDirResponse(keepalive=pb.WatchDirResponse.KeepAlive())


def told(name: str, kind: int = pb.EVENT_TYPE_CREATE, **fields: Any) -> pb.WatchDirResponse:
    event = pb.FilesystemEvent(name=name, **fields)
    event.type = kind  # type: ignore[assignment]
    return pb.WatchDirResponse(filesystem=event)


class Directory:
    """A directory that a service watches: what it tells of it, and who watches."""

    def __init__(self) -> None:
        self.script: Script = self.telling(START)
        self.requests: list[tuple[pb.WatchDirRequest, Context]] = []
        self.open_streams = 0

    def telling(self, *messages: pb.WatchDirResponse, then: RpcError | None = None) -> Script:
        """Tell this, and then no more."""

        async def script() -> AsyncIterator[pb.WatchDirResponse]:
            for message in messages:
                yield message
            if then is not None:
                raise then
            await asyncio.Event().wait()

        return script

    async def watch(
        self, request: pb.WatchDirRequest, context: Context
    ) -> AsyncIterator[pb.WatchDirResponse]:
        self.requests.append((request, context))
        self.open_streams += 1
        try:
            async for message in self.script():
                yield message
        finally:
            self.open_streams -= 1


@contextmanager
def watching(transport: str) -> Iterator[tuple[Directory, Sandbox]]:
    """A directory and a sandbox that has it."""

    async def refuse(request: Any, context: Context) -> Any:
        raise RpcError(Code.UNIMPLEMENTED, "not in this test")

    directory = Directory()
    handlers: dict[str, Any] = dict.fromkeys(services.FILESYSTEM.methods, refuse)
    handlers["WatchDir"] = directory.watch
    with sandbox(transport) as (service, sb):
        service._rpc = lambda: Rpc([(services.FILESYSTEM, handlers)])  # type: ignore[method-assign]
        yield directory, sb


@both
def test_the_service_is_asked_as_the_caller_asks(transport: str) -> None:
    with watching(transport) as (directory, sb):
        sb.files.watch_dir("d").stop()
        sb.files.watch_dir(
            "/a b", user="root", timeout=7, recursive=True, include_entry=True, allow_network_mounts=True
        ).stop()
        (plain, context), (full, of_root) = directory.requests
        assert plain == pb.WatchDirRequest(path="d")
        assert context.user is None
        assert int(context.headers["keepalive-ping-interval"]) > 0
        assert full == pb.WatchDirRequest(
            path="/a b", recursive=True, include_entry=True, allow_network_mounts=True
        )
        assert of_root.user == "root"
        until(lambda: directory.open_streams == 0)


@both
def test_what_a_newer_service_tells_is_skipped(transport: str) -> None:
    with watching(transport) as (directory, sb):
        messages = [told("x", 99), KEEPALIVE, told("y", 0), pb.WatchDirResponse(), told("z"), told("end")]
        directory.script = directory.telling(START, *messages)
        with sb.files.watch_dir("d") as handle:
            assert list(zip("z", handle, strict=False)) == [
                ("z", FilesystemEvent("z", FilesystemEventType.CREATE, None))
            ]
            assert [event.name for event in handle.poll(timeout=5)] == ["end"]


@both
def test_the_end_of_the_stream_is_an_error_that_nobody_misses(transport: str) -> None:
    async def script() -> AsyncIterator[pb.WatchDirResponse]:
        yield START
        yield told("a")

    with watching(transport) as (directory, sb):
        directory.script = script
        exits: list[Exception | None] = []
        names: list[str] = []
        called_back = sb.files.watch_dir("d", lambda event: names.append(event.name), exits.append)
        with pytest.raises(ConnectionException, match="ended the watch of 'd'"):
            called_back.wait(timeout=5)
        until(lambda: exits)
        assert [type(error) for error in exits] == [ConnectionException]
        assert names == ["a"]
        asked = sb.files.watch_dir("d")
        assert [event.name for event in asked.poll(timeout=5)] == ["a"]
        for ask in (asked.poll, asked.get_new_events, lambda: list(asked), asked.wait):
            with pytest.raises(ConnectionException, match="ended the watch of 'd'"):
                ask()


@both
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("events were lost: they are not read as fast as they happen", EventsLostException),
        ("watcher error: fsnotify: queue or buffer overflow", EventsLostException),
        ("the disk is on fire", SandboxException),
    ],
)
def test_lost_events_are_told_from_other_errors(
    transport: str, words: str, kind: type[SandboxException]
) -> None:
    with watching(transport) as (directory, sb):
        directory.script = directory.telling(START, told("a"), then=RpcError(Code.INTERNAL, words))
        handle = sb.files.watch_dir("d")
        assert [event.name for event in handle.poll(timeout=5)] == ["a"]
        with pytest.raises(kind, match=words.rpartition(":")[2].strip()) as caught:
            handle.poll(timeout=5)
        assert type(caught.value) is kind
        assert (caught.value.code, caught.value.sandbox_id) == ("internal", sb.sandbox_id)
        assert caught.value.path == "/filesystem.Filesystem/WatchDir"


@both
def test_what_nobody_asks_for_is_bounded_and_the_loss_told(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G30: never silence. The newest are kept."""
    assert MOST_EVENTS == 100_000
    monkeypatch.setattr("sandbox_sync.watch.MOST_EVENTS", 1000)
    with watching(transport) as (directory, sb):
        directory.script = directory.telling(START, *(told(str(n)) for n in range(1500)))
        with sb.files.watch_dir("d") as handle:
            until(lambda: handle._events._lost == 500)
            with pytest.raises(EventsLostException, match=r"^500 events in 'd' were dropped"):
                handle.poll()
            names = [event.name for event in handle.poll()]
            assert names == [str(n) for n in range(500, 1500)]
            assert handle.get_new_events() == []


@both
def test_an_iteration_goes_on_after_a_loss(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_sync.watch.MOST_EVENTS", 2)
    with watching(transport) as (directory, sb):
        directory.script = directory.telling(START, *(told(str(n)) for n in range(5)))
        with sb.files.watch_dir("d") as handle:
            until(lambda: handle._events._lost == 3)
            with pytest.raises(EventsLostException, match=r"^3 events"):
                next(iter(handle))
            assert [event.name for event in handle.events(timeout=0.1)] == ["3", "4"]


@both
def test_an_iteration_does_not_end_because_another_took_the_event(transport: str) -> None:
    """Each event goes to one of several threads, and none of them ends before the watch does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # for them to come between each other
    try:
        with watching(transport) as (directory, sb):
            directory.script = directory.telling(START, *(told(str(n)) for n in range(2000)))
            handle = sb.files.watch_dir("d", timeout=0)
            got: list[list[int]] = [[] for _ in range(8)]
            threads = [
                threading.Thread(target=lambda own=own: own.extend(int(event.name) for event in handle))
                for own in got
            ]
            for thread in threads:
                thread.start()
            until(lambda: sum(map(len, got)) == 2000, within=20)
            assert all(thread.is_alive() for thread in threads)
            handle.stop()
            for thread in threads:
                thread.join(5)
            assert all(own == sorted(own) for own in got)
            assert sorted(n for own in got for n in own) == list(range(2000))
    finally:
        sys.setswitchinterval(interval)


@both
def test_a_watch_with_a_callback_keeps_no_events(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_sync.watch.MOST_EVENTS", 10)  # which concerns it not
    alive: list[weakref.ref[FilesystemEvent]] = []
    with watching(transport) as (directory, sb):
        directory.script = directory.telling(START, *(told(str(n)) for n in range(3000)))
        with sb.files.watch_dir("d", lambda event: alive.append(weakref.ref(event))) as handle:
            until(lambda: len(alive) == 3000)
            gc.collect()
            assert sum(one() is not None for one in alive) <= 1
            assert handle.get_new_events() == []


@both
@pytest.mark.parametrize("with_on_exit", [False, True])
def test_a_dropped_handle_ends_its_watch(transport: str, with_on_exit: bool) -> None:
    """G30: dropped handle frees the server's watcher. G11: within a second."""
    exits: list[Exception | None] = []
    with watching(transport) as (directory, sb):
        handle = sb.files.watch_dir("d", on_exit=exits.append if with_on_exit else None)
        assert directory.open_streams == 1
        del handle
        gc.collect()
        until(lambda: directory.open_streams == 0, within=1)
        until(lambda: exits == [None] * with_on_exit)


@both
def test_a_watch_that_is_not_confirmed_is_a_request_timeout(transport: str) -> None:
    """G2: within request_timeout + 0.5 s."""
    with watching(transport) as (directory, sb):
        directory.script = directory.telling()
        exits: list[Exception | None] = []
        begin = time.monotonic()
        with pytest.raises(RequestTimeoutException):
            sb.files.watch_dir("d", print, exits.append, timeout=0, request_timeout=0.5)
        assert 0.45 < time.monotonic() - begin < 1
        until(lambda: directory.open_streams == 0)
        assert exits == []


@both
def test_a_watch_without_a_thread_is_none(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(transport) as (directory, sb):
        sb.files.watch_dir("d").stop()  # whatever else needs threads has them now

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(SandboxException, match="can't start new thread"):
                sb.files.watch_dir("d")
        until(lambda: directory.open_streams == 0)


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        (0, 0, datetime(1970, 1, 1)),
        (1_700_000_000, 123_456_789, datetime(2023, 11, 14, 22, 13, 20, 123456)),
        (-1, 500_000_000, datetime(1969, 12, 31, 23, 59, 59, 500000)),
        (2**62, 0, datetime(9999, 12, 31, 23, 59, 59)),
        (-(2**62), -5, datetime(1, 1, 1)),
    ],
)
def test_any_time_that_a_file_can_have_is_told(seconds: int, nanos: int, expected: datetime) -> None:
    entry = pb.EntryInfo(name="f", type=pb.FILE_TYPE_FILE, path="/f")
    entry.modified_time.seconds, entry.modified_time.nanos = seconds, nanos
    assert entry_info(entry).modified_time == expected.replace(tzinfo=timezone.utc)


def test_entries_have_what_the_service_says_and_none_for_the_rest() -> None:
    full = pb.EntryInfo(
        name="l",
        type=pb.FILE_TYPE_DIRECTORY,
        path="/l",
        size=3,
        mode=0o755,
        permissions="Lrwxrwxrwx",
        owner="o",
        group="g",
        symlink_target="/t",
        is_symlink=True,
        metadata={"a": "b"},
    )
    entry = entry_info(full)
    assert (entry.name, entry.path, entry.size, entry.mode, entry.owner) == ("l", "/l", 3, 0o755, "o")
    assert (entry.type, entry.symlink_target, entry.group) == (FileType.SYMLINK, "/t", "g")
    assert (entry.permissions, entry.metadata) == ("Lrwxrwxrwx", {"a": "b"})
    assert entry_info(pb.EntryInfo(type=pb.FILE_TYPE_SYMLINK)).type is FileType.SYMLINK  # of older services
    bare = entry_info(pb.EntryInfo(name="s"))
    assert (bare.type, bare.symlink_target, bare.metadata) == (None, None, None)
