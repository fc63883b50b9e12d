"""Very many events in real sandboxes: each is told, or it is told that some are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from sandbox_sync import (
    EventsLostException,
    FilesystemEvent,
    FilesystemEventType,
    Sandbox,
)
from tests.live.command_tools import until

COUNT = 10_000
NAMES = [f"{n:05}" for n in range(1, COUNT + 1)]
# One event each. The kernel keeps 16,384 for a watcher that does not get to read: the former are all told,
# however busy the machine is, and the latter are not.
MAKE_ALL = f"cd d && python3 -c 'import os; [os.mknod(str(n).zfill(5)) for n in range(1, {COUNT + 1})]'"
MAKE_TOO_MANY = "cd d && python3 -c 'import os; [os.mkdir(str(n)) for n in range(20_000)]'"

NESTED = """
import os
for directory in range(100):
    os.mkdir(f"d/{directory:03}")
    for below in range(10):
        os.mkdir(f"d/{directory:03}/{below}")
        for file in range(9):
            open(f"d/{directory:03}/{below}/{file}", "w").close()
"""
NESTED_NAMES = {
    name
    for directory in range(100)
    for name in (
        f"{directory:03}",
        *(f"{directory:03}/{below}" for below in range(10)),
        *(f"{directory:03}/{below}/{file}" for below in range(10) for file in range(9)),
    )
}


@pytest.fixture
def watched(sandbox: Sandbox) -> Sandbox:
    """A sandbox with a directory `d`."""
    sandbox.files.make_dir("d")
    return sandbox


def created(events: list[FilesystemEvent]) -> list[str]:
    return [event.name for event in events if event.type is FilesystemEventType.CREATE]


def asking(sandbox: Sandbox, recursive: bool) -> list[str]:
    names: list[str] = []
    with sandbox.files.watch_dir("d", recursive=recursive, timeout=0) as handle:
        sandbox.commands.run(MAKE_ALL)
        while len(names) < COUNT:
            got = handle.poll(timeout=10)
            assert got, f"{len(names)} of {COUNT}"
            names += created(got)
    return names


def iterating(sandbox: Sandbox, recursive: bool) -> list[str]:
    names: list[str] = []
    with sandbox.files.watch_dir("d", recursive=recursive, timeout=0) as handle:
        running = sandbox.commands.run(MAKE_ALL, background=True)
        for event in handle.events(timeout=30):
            if event.type is FilesystemEventType.CREATE:
                names.append(event.name)
                if event.name == NAMES[-1]:
                    break
        running.wait(timeout=10)
    return names


def called_back(sandbox: Sandbox, recursive: bool) -> list[str]:
    told: list[FilesystemEvent] = []
    with sandbox.files.watch_dir("d", told.append, timeout=0, recursive=recursive):
        sandbox.commands.run(MAKE_ALL)
        until(lambda: len(created(told)) == COUNT, within=30)
    return created(told)


@pytest.mark.documented("Filesystem.watch_dir")
@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("way", [asking, iterating, called_back])
def test_ten_thousand_files_are_told_in_order(
    watched: Sandbox, way: Callable[[Sandbox, bool], list[str]], recursive: bool
) -> None:
    """G30: 10,000 events in order, none lost; whichever way they are asked for."""
    assert way(watched, recursive) == NAMES


def test_ten_thousand_files_in_directories_that_are_made_meanwhile_are_told(watched: Sandbox) -> None:
    """G30: none lost and none told twice; what is in a directory is told after the directory."""
    told: list[FilesystemEvent] = []
    with watched.files.watch_dir("d", told.append, timeout=0, recursive=True) as handle:
        watched.files.write("make.py", NESTED)
        watched.commands.run("python3 make.py")
        until(lambda: len(created(told)) >= len(NESTED_NAMES), within=30)
        watched.commands.run("mkdir d/last")
        until(lambda: created(told)[-1:] == ["last"])
        handle.stop()
    names = created(told)[:-1]
    assert len(names) == len(NESTED_NAMES)
    assert set(names) == NESTED_NAMES
    position = {name: n for n, name in enumerate(names)}
    assert all(position[name.rpartition("/")[0]] < position[name] for name in names if "/" in name)


def test_a_callback_that_is_slower_than_what_happens_is_told_all_of_it(watched: Sandbox) -> None:
    """G30: what it has not taken yet waits for it."""
    told: list[FilesystemEvent] = []
    go_on = threading.Event()

    def on_event(event: FilesystemEvent) -> None:
        go_on.wait(30)
        if len(told) % 100 == 0:
            time.sleep(0.01)
        told.append(event)

    with watched.files.watch_dir("d", on_event, timeout=0):
        watched.commands.run(MAKE_ALL)
        assert told == []
        go_on.set()
        until(lambda: len(created(told)) == COUNT, within=30)
    assert created(told) == NAMES


def stop_the_watcher(sandbox: Sandbox) -> None:
    """Let the server's watcher in the sandbox read nothing until `MAKE_TOO_MANY` has overrun it."""
    sandbox.commands.run(
        f"set -e; watcher=$(pgrep -x sandbox | tail -1); kill -STOP $watcher; cd ~user; {MAKE_TOO_MANY}; "
        "kill -CONT $watcher",
        user="root",
        timeout=60,
    )


def test_a_callbacks_watch_that_lost_events_ends_with_an_error(watched: Sandbox) -> None:
    """G30: never silence."""
    told: list[FilesystemEvent] = []
    exits: list[Exception | None] = []
    handle = watched.files.watch_dir("d", told.append, exits.append, timeout=0)
    stop_the_watcher(watched)
    with pytest.raises(EventsLostException, match="events were lost") as caught:
        handle.wait(timeout=20)
    assert caught.value.sandbox_id == watched.sandbox_id
    assert "'d'" in caught.value.message
    until(lambda: exits)
    assert exits == [caught.value]
    names = created(told)
    assert names == [str(n) for n in range(len(names))], "all that happened before the loss"
    assert 10_000 < len(names) < 20_000
    with watched.files.watch_dir("d") as again:
        watched.commands.run("mkdir d/again")
        assert created(again.poll(timeout=10)) == ["again"]


@pytest.mark.parametrize("way", ["poll", "get_new_events", "iteration"])
def test_who_asks_is_told_of_lost_events_after_those_before(watched: Sandbox, way: str) -> None:
    """G30: never silence."""
    told: list[FilesystemEvent] = []
    with watched.files.watch_dir("d", timeout=0) as handle:
        stop_the_watcher(watched)

        def ask() -> None:
            while True:
                if way == "iteration":
                    for event in handle:
                        told.append(event)
                else:
                    told.extend(handle.poll(timeout=20) if way == "poll" else handle.get_new_events())

        with pytest.raises(EventsLostException, match="events were lost"):
            ask()
        for _ in range(2):
            with pytest.raises(EventsLostException):
                handle.get_new_events()
    names = created(told)
    assert names == [str(n) for n in range(len(names))]
    assert 10_000 < len(names) < 20_000


def test_a_callback_that_does_not_come_back_is_told_of_what_it_missed(watched: Sandbox) -> None:
    """G30: more happens than the server keeps for a client that does not read; it says so at the end."""
    told: list[FilesystemEvent] = []
    exits: list[Exception | None] = []
    go_on = threading.Event()

    def on_event(event: FilesystemEvent) -> None:
        go_on.wait(90)
        told.append(event)

    # Names of some 3,000 bytes, of which the network keeps some MiB and the server 16. The next hundreds
    # happen when another watcher has read the last, or the kernel, which keeps 16,384, would lose some first.
    deep = "/".join(["x" * 250] * 12)
    watched.files.make_dir(f"d/{deep}")
    watched.files.write(
        "many.py",
        f"import os\nos.chdir('d/{deep}')\nfor n in range(200):\n    os.mknod('y')\n    os.unlink('y')\n",
    )
    handle = watched.files.watch_dir("d", on_event, exits.append, timeout=0, recursive=True)
    with watched.files.watch_dir("d", timeout=0, recursive=True) as pace:
        for _ in range(30):
            watched.commands.run("python3 many.py")
            seen = 0
            while seen < 400:
                news = pace.poll(timeout=30)
                assert news, f"the other watcher was told of {seen} events only"
                seen += len(news)
    assert exits == []
    go_on.set()
    with pytest.raises(EventsLostException, match="not read as fast as they happen"):
        handle.wait(timeout=60)
    until(lambda: exits)
    assert [type(error) for error in exits] == [EventsLostException]
    assert [event.type.value for event in told] == (["create", "remove"] * len(told))[: len(told)]
    assert 16 << 20 < len(told) * len(deep) < 30 * 400 * len(deep)
