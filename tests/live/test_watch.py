"""Watching directories of real sandboxes: what is told, and the ways to be told."""

from __future__ import annotations

import contextvars
import gc
import pathlib
import threading
import time
from collections.abc import Callable

import pytest

from sandbox_sync import (
    FilesystemEvent,
    FilesystemEventType,
    FileType,
    Sandbox,
    WatchHandle,
)
from tests.live.command_tools import threads, until


def plain(events: list[FilesystemEvent]) -> list[tuple[str, str]]:
    return [(event.type.value, event.name) for event in events]


def take(handle: WatchHandle, count: int) -> list[FilesystemEvent]:
    """So many events, as they come."""
    events: list[FilesystemEvent] = []
    while len(events) < count:
        got = handle.get_new_events() or handle.poll(timeout=10)
        assert got, events
        events += got
    return events


def created(events: list[FilesystemEvent]) -> list[str]:
    return [event.name for event in events if event.type is FilesystemEventType.CREATE]


EVERYTHING = [
    ("create", "f"),
    ("write", "f"),
    ("chmod", "f"),
    ("rename", "f"),
    ("create", "g"),
    ("remove", "g"),
    ("create", "d"),
    ("remove", "d"),
]
DO_EVERYTHING = "echo x > d/f; chmod 600 d/f; mv d/f d/g; rm d/g; mkdir d/d; rmdir d/d"


@pytest.fixture
def watched(sandbox: Sandbox) -> Sandbox:
    """A sandbox with a directory `d`."""
    sandbox.files.make_dir("d")
    return sandbox


@pytest.mark.documented("Filesystem.watch_dir")
def test_a_callback_is_told_of_everything_in_order(watched: Sandbox) -> None:
    """G30: callback."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("of the caller")
    told: list[FilesystemEvent] = []
    places: set[tuple[str | None, threading.Thread]] = set()
    exits: list[Exception | None] = []

    def on_event(event: FilesystemEvent) -> None:
        told.append(event)
        places.add((variable.get(None), threading.current_thread()))

    def on_exit(error: Exception | None) -> None:
        exits.append(error)
        places.add((variable.get(None), threading.current_thread()))

    handle = watched.files.watch_dir("d", on_event, on_exit, "user", 10, 60, False)
    assert isinstance(handle, WatchHandle)
    watched.commands.run(DO_EVERYTHING)
    until(lambda: len(told) == len(EVERYTHING))
    assert plain(told) == EVERYTHING
    assert all(event.entry is None for event in told)
    assert {event.type for event in told} == set(FilesystemEventType)
    assert exits == []
    handle.stop()
    until(lambda: exits)
    ((value, thread),) = places
    assert value == "of the caller"
    assert thread is not threading.current_thread()
    watched.commands.run("touch d/later")
    watched.files.write("d/later", "x")
    handle.stop()
    assert (exits, len(told)) == ([None], len(EVERYTHING))
    until(lambda: "sandbox-sync-watch" not in threads())


def test_new_events_can_be_asked_for(watched: Sandbox) -> None:
    with watched.files.watch_dir("d") as handle:
        assert handle.get_new_events() == []
        watched.commands.run(DO_EVERYTHING)
        assert plain(take(handle, len(EVERYTHING))) == EVERYTHING
        assert handle.get_new_events() == []
        for n in range(20):  # what a command has done is told when it has ended
            watched.commands.run(f"mkdir d/{n}")
            assert plain(take(handle, 1)) == [("create", f"{n}")]
        watched.files.write("d/up", "x")
        assert ("create", "up") in plain(take(handle, 1))


def test_polling_waits_for_events_and_not_longer_than_asked(watched: Sandbox) -> None:
    """G30: poll(timeout)."""
    with watched.files.watch_dir("d") as handle:
        begin = time.monotonic()
        assert handle.poll(timeout=0.3) == []
        assert 0.29 < time.monotonic() - begin < 0.6
        watched.commands.run("(sleep 0.5; mkdir d/a) >/dev/null 2>&1 &")
        begin = time.monotonic()
        assert plain(handle.poll(timeout=10)) == [("create", "a")]
        assert time.monotonic() - begin < 3
        watched.commands.run("(sleep 0.3; mkdir d/b) >/dev/null 2>&1 &")
        assert plain(handle.poll()) == [("create", "b")]
        watched.commands.run("mkdir d/c d/e")
        until(lambda: len(handle._events._waiting) == 2)
        assert plain(handle.poll(timeout=0.0)) == [("create", "c"), ("create", "e")]


def test_events_can_be_iterated_over(watched: Sandbox) -> None:
    """G30: blocking iterator, with and without a timeout."""
    with watched.files.watch_dir("d") as handle:
        watched.commands.run(DO_EVERYTHING)
        told = []
        for event in handle:
            told.append(event)
            if len(told) == len(EVERYTHING):
                break
        assert plain(told) == EVERYTHING
        watched.commands.run("mkdir d/x d/y")
        begin = time.monotonic()
        assert plain(list(handle.events(timeout=0.5))) == [("create", "x"), ("create", "y")]
        assert 0.49 < time.monotonic() - begin < 0.9
        assert list(handle.events(timeout=0.01)) == []


@pytest.mark.documented("WatchHandle.stop")
@pytest.mark.parametrize("who", ["iteration", "events", "poll", "wait"])
def test_stopping_in_another_thread_frees_who_waits(watched: Sandbox, who: str) -> None:
    """G30: stop() callable from another thread."""
    handle = watched.files.watch_dir("d", timeout=0)
    results: list[object] = []
    waits: dict[str, Callable[[], object]] = {
        "iteration": lambda: list(handle),
        "events": lambda: list(handle.events(timeout=60)),
        "poll": lambda: handle.poll(timeout=60),
        "wait": lambda: handle.wait(),
    }
    waiting = [threading.Thread(target=lambda: results.append(waits[who]())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)  # they wait; if they do not yet, the outcome is the same
    assert results == []
    begin = time.monotonic()
    handle.stop()
    for thread in waiting:
        thread.join(5)
    assert time.monotonic() - begin < 0.5
    nothing: object = None if who == "wait" else []
    assert results == [nothing] * 3


def test_several_threads_share_the_events(watched: Sandbox) -> None:
    """Each event goes to one of them, and none of them ends before the watch does."""
    handle = watched.files.watch_dir("d", timeout=0)
    got: list[list[str]] = [[] for _ in range(4)]

    def iterate(own: list[str]) -> None:
        for event in handle:
            own.append(event.name)

    workers = [threading.Thread(target=iterate, args=(own,)) for own in got]
    for worker in workers:
        worker.start()
    watched.commands.run("cd d; for n in $(seq 1000); do mkdir $n; done")
    until(lambda: sum(map(len, got)) == 1000)
    assert all(worker.is_alive() for worker in workers)
    handle.stop()
    for worker in workers:
        worker.join(5)
        assert not worker.is_alive()
    assert sorted(int(name) for own in got for name in own) == list(range(1, 1001))
    for own in got:
        assert own == sorted(own, key=int)


@pytest.mark.documented("WatchHandle.stop")
@pytest.mark.documented("WatchHandle.stop")
def test_stopping_twice_and_early_is_harmless(watched: Sandbox) -> None:
    """G30: stop() idempotent, context manager."""
    exits: list[Exception | None] = []
    for _ in range(3):
        with watched.files.watch_dir("d", print, exits.append) as handle:
            handle.stop()
            handle.stop()
        handle.stop()
        handle.wait(timeout=5)
    until(lambda: len(exits) == 3)
    assert exits == [None] * 3
    with watched.files.watch_dir("d") as handle:
        watched.commands.run("mkdir d/a d/b")
        until(lambda: len(handle._events._waiting) == 2)
        stoppers = [threading.Thread(target=handle.stop) for _ in range(5)]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(5)
    watched.commands.run("mkdir d/late")
    assert plain(handle.get_new_events()) == [("create", "a"), ("create", "b")], "those that had come"
    assert handle.get_new_events() == handle.poll() == list(handle) == []
    assert "stopped" in repr(handle)
    until(lambda: "sandbox-sync-watch" not in threads())


def test_a_callback_can_stop_the_watch(watched: Sandbox) -> None:
    told: list[FilesystemEvent] = []
    exits: list[Exception | None] = []

    def on_event(event: FilesystemEvent) -> None:
        told.append(event)
        if len(told) == 2:
            handle.stop()

    handle = watched.files.watch_dir("d", on_event, exits.append, timeout=0)
    watched.commands.run("mkdir d/a d/b d/c d/e")
    handle.wait(timeout=10)
    until(lambda: exits)
    assert (plain(told), exits) == ([("create", "a"), ("create", "b")], [None])


def test_a_callback_can_use_the_sandbox(watched: Sandbox) -> None:
    read: list[str] = []
    with watched.files.watch_dir(
        "d", lambda event: read.append(watched.files.read(f"d/{event.name}")), timeout=0
    ) as handle:
        watched.commands.run("echo one > x; mv x d/a; echo two > x; mv x d/b")
        until(lambda: len(read) == 2)
        assert read == ["one\n", "two\n"]
        assert "watching" in repr(handle)


@pytest.mark.documented("Filesystem.watch_dir")
def test_below_the_directory_nothing_is_told_unless_asked_for(watched: Sandbox) -> None:
    watched.commands.run("mkdir -p d/sub")
    with watched.files.watch_dir("d") as flat, watched.files.watch_dir("d", recursive=True) as deep:
        watched.commands.run("echo x > d/sub/f; mkdir d/new; echo y > d/top")
        names = ["new", "top", "top"]
        assert [event.name for event in take(flat, 3)] == names
        assert [event.name for event in take(deep, 5)] == ["sub/f", "sub/f", *names]


def test_directories_that_are_made_and_moved_later_are_watched(watched: Sandbox) -> None:
    watched.commands.run("mkdir -p outside/deep/er")
    with watched.files.watch_dir("d", recursive=True) as handle:
        watched.commands.run("mkdir -p d/a/b/c")
        assert plain(take(handle, 3)) == [("create", "a"), ("create", "a/b"), ("create", "a/b/c")]
        watched.commands.run("mkdir d/a/b/c/x; mv outside d/in")
        assert plain(take(handle, 2)) == [("create", "a/b/c/x"), ("create", "in")]
        watched.commands.run("mkdir d/in/deep/er/y; mv d/a d/in/deep/moved")
        assert plain(take(handle, 3)) == [
            ("create", "in/deep/er/y"),
            ("rename", "a"),
            ("create", "in/deep/moved"),
        ]
        watched.commands.run("mkdir d/in/deep/moved/b/z; mv d/in ~/out; mkdir ~/out/deep/unseen")
        assert plain(take(handle, 2)) == [("create", "in/deep/moved/b/z"), ("rename", "in")]


def test_entries_are_described_if_asked_for(watched: Sandbox) -> None:
    watched.commands.run("mkdir d/sub; ln -s /etc/hostname d/link")
    with watched.files.watch_dir("d", recursive=True, include_entry=True) as handle:
        watched.commands.run("echo hello > ~user/d/sub/f", user="root")
        made, written = take(handle, 2)
        assert plain([made, written]) == [("create", "sub/f"), ("write", "sub/f")]
        assert written.entry == watched.files.get_info("d/sub/f")
        assert written.entry is not None
        assert (written.entry.name, written.entry.path) == ("f", "/home/user/d/sub/f")
        assert (written.entry.type, written.entry.size) == (FileType.FILE, 6)
        assert (written.entry.owner, written.entry.mode) == ("root", 0o644)
        watched.commands.run("mkdir d/x; ln -s sub d/l; chmod 700 d")
        x, link, itself = take(handle, 3)
        assert x.entry == watched.files.get_info("d/x")
        assert link.entry == watched.files.get_info("d/l")
        assert link.entry is not None
        assert (link.entry.type, link.entry.symlink_target) == (FileType.SYMLINK, "/home/user/d/sub")
        assert plain([itself]) == [("chmod", ".")]
        assert itself.entry == watched.files.get_info("d")
        watched.commands.run("mkdir d/gone; rmdir d/gone; mv d/x d/y")
        gone = take(handle, 4)
        assert plain(gone)[-3:] == [("remove", "gone"), ("rename", "x"), ("create", "y")]
        assert [event.entry is None for event in gone[-3:]] == [True, True, False]
        watched.files.write("d/meta", "x", metadata={"a": "b"})
        last = take(handle, 2)[-1]
        assert last.entry is not None
        assert last.entry.metadata == {"a": "b"}


NAMES = ["with space", "quote'\"", "percent%41+", "\u00e4\u20ac\U0001f600", "new\nline", "-n", "x" * 255]


def test_names_are_told_as_they_are(watched: Sandbox) -> None:
    with watched.files.watch_dir("d", recursive=True) as handle:
        for name in NAMES:
            watched.files.make_dir(f"d/{name}")
        assert created(take(handle, 2 * len(NAMES))) == NAMES
    for name in NAMES:
        with watched.files.watch_dir(pathlib.PurePosixPath("d", name), include_entry=True) as handle:
            watched.files.make_dir(f"d/{name}/{name}")
            event = take(handle, 1)[0]
            assert plain([event]) == [("create", name)]
            assert event.entry is not None
            assert event.entry.path == f"/home/user/d/{name}/{name}"


def test_the_user_decides_where_home_is(watched: Sandbox) -> None:
    with watched.files.watch_dir(".", user="root") as roots, watched.files.watch_dir("~") as own:
        watched.commands.run("touch ~/of_root", user="root")
        watched.commands.run("mkdir of_user")
        assert ("create", "of_root") in plain(take(roots, 1))
        assert plain(take(own, 1)) == [("create", "of_user")]


def test_dropped_handles_free_the_watchers_of_the_server(watched: Sandbox) -> None:
    """G30: of which it allows 64 at a time; and in the sandbox no process of them is left."""
    before = processes(watched)
    for n in range(70):
        handle = watched.files.watch_dir("d", None, (lambda _: None) if n % 2 else None, timeout=0)
        if n == 69:
            watched.commands.run("mkdir d/x")
            assert plain(take(handle, 1)) == [("create", "x")]
        del handle
        gc.collect(1)  # a whole collection takes long in the process of many tests
    for _ in range(70):
        for _event in watched.files.watch_dir("d", timeout=0).events(timeout=0.001):
            pass
    until(lambda: processes(watched) == before)
    until(lambda: "sandbox-sync-watch" not in threads())


def processes(sandbox: Sandbox) -> int:
    """How many processes the sandbox has, those of the server's included."""
    return len(sandbox.commands.run("ls -d /proc/[0-9]*", user="root", check=False).stdout.split())


def test_a_watch_with_a_callback_outlives_its_handle(watched: Sandbox) -> None:
    told: list[FilesystemEvent] = []
    watched.files.watch_dir("d", told.append, timeout=0)
    gc.collect()
    watched.commands.run("mkdir d/a")
    until(lambda: told)
    assert plain(told) == [("create", "a")]
    watched.kill()
    until(lambda: "sandbox-sync-watch" not in threads())
